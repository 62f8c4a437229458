"""The changelog at least once: rows, then one progress record per partition, delivered before the store is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from worker.core.restore_by_progress import PROGRESS_KEY, ProgressRecord
from worker.partitions import OwnedPartition
from worker.ports import Clock, Hook, Producer

Rows = Sequence[tuple[bytes, bytes | None]]
ChangelogEnds = Callable[[Sequence[int]], dict[int, int]]
"""Partitions → exclusive ends of their changelogs."""


class ProgressChangelog:
    """Writes to the changelog topic with the outputs' producer, after the outputs."""

    def __init__(self, *, producer: Producer, topic: str, ends: ChangelogEnds, clock: Clock, hook: Hook) -> None:
        self._producer = producer
        self._topic = topic
        self._ends = ends
        self._clock = clock
        self._hook = hook

    def write(self, partitions: Sequence[OwnedPartition], changes: Mapping[int, Rows]) -> None:
        """Rows and progress of one commit; returns once the broker has them. Raises ProduceFailed.

        The partitions' `changelog_next_offset` are then their changelogs' ends.
        """
        for partition in partitions:
            progress = ProgressRecord(partition.next_offset, partition.watermark_ms)
            self._send(partition.index, [*changes.get(partition.index, ()), (PROGRESS_KEY, progress.encode())])
        self._hook("changelog_sent")
        self._producer.flush()
        self._hook("changelog_flushed")
        ends = self._ends([partition.index for partition in partitions])
        for partition in partitions:
            partition.changelog_next_offset = ends[partition.index]

    def supersede(self, partition: OwnedPartition, keys: Sequence[bytes]) -> None:
        """Write these streams' rows as they are stored, or their tombstones, over rows that do not count."""
        assert partition.store is not None, "a restored partition has a store"
        rows = partition.store.get_many(keys)
        self._send(partition.index, list(zip(keys, rows, strict=True)))
        self._producer.flush()

    def _send(self, partition: int, rows: Rows) -> None:
        count = len(rows)
        keys, values = [key for key, _ in rows], [row for _, row in rows]
        self._producer.produce_many(self._topic, [partition] * count, keys, values, [self._clock.now_ms()] * count)
