"""Moves a group's offsets and clears its state, together: in one transaction where there is a changelog.

The group must be empty. The transaction holds a tombstone for every open sequence, one for the key that no stream has,
so that the changelog's end moves in any case, and the new offsets. Their metadata says that rows and local stores from
before that end are of no importance.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from worker.adapters.kafka_admin import KafkaAdmin
from worker.adapters.kafka_changelog import KafkaChangelogReader
from worker.adapters.kafka_consumer import KafkaConsumer
from worker.adapters.kafka_producer import TransactionalKafkaProducer
from worker.core.commit_metadata import CommitMetadata
from worker.core.reset import ResetTo, reset_targets
from worker.core.restore import InputTopic, Log
from worker.core.restore_by_progress import PROGRESS_KEY
from worker.errors import ConfigError, Retriable, TransactionAborted
from worker.ports import Clock

log = logging.getLogger(__name__)

CALL_SECONDS_MAX = 30.0
READ_SECONDS = 0.5
NO_MODEL = "0" * 8
"""In the metadata of a commit that no model's worker made."""


@dataclass(frozen=True, slots=True)
class PartitionReset:
    """One partition: its committed next offset, where it goes, and how many records will be read from there."""

    partition: int
    committed: int | None
    next_offset: int
    records: int


class GroupNotEmpty(ConfigError):
    """Raised when a group that must be empty has members."""


class Resetter:
    """Plans and carries out a reset of one group on one input topic."""

    def __init__(
        self,
        *,
        admin: KafkaAdmin,
        consumer: KafkaConsumer,
        group: str,
        topic: str,
        input_topic: InputTopic,
        clock: Clock,
    ) -> None:
        """`consumer` has the group's id and never joins it."""
        self._admin = admin
        self._consumer = consumer
        self._group = group
        self._topic = topic
        self._input_topic = input_topic
        self._clock = clock

    def refuse_members(self) -> None:
        """Raises GroupNotEmpty while the group has members: their next commit would undo the reset."""
        members: list[str] = []
        self._patiently(lambda: members.extend(self._admin.group_members(self._group)))
        if members:
            raise GroupNotEmpty(
                f"group {self._group} has {len(members)} members ({', '.join(members[:3])})",
                "stop all workers first; a static member that was killed stays for its session timeout",
            )

    def plan(self, to: ResetTo, partitions: Sequence[int], timestamp_ms: int | None = None) -> list[PartitionReset]:
        """What would be done. Raises ConfigError for an offset that is not there."""
        low = self._admin.start_offsets(self._topic, partitions)
        high = self._admin.end_offsets(self._topic, partitions, read_committed=False)
        by_time = None if timestamp_ms is None else self._admin.offsets_at(self._topic, partitions, timestamp_ms)
        targets = reset_targets(to, {each: Log(low[each], high[each]) for each in partitions}, by_time)
        committed = self._consumer.committed(partitions)
        return [PartitionReset(each, committed[each], targets[each], high[each] - targets[each]) for each in partitions]

    def open_sequences(
        self, reader: KafkaChangelogReader, changelog: str, partitions: Sequence[int], advance: Callable[[int], object]
    ) -> dict[int, list[bytes]]:
        """Keys of the rows that the changelog holds, by partition. `advance` is told of every offset passed."""
        low = self._admin.start_offsets(changelog, partitions)
        ends = self._admin.end_offsets(changelog, partitions, read_committed=True)
        keys: dict[int, set[bytes]] = {each: set() for each in partitions}
        left = {each: low[each] for each in partitions if low[each] < ends[each]}
        for partition, offset in left.items():
            reader.begin(partition, offset)
        while left:
            for partition, batch in reader.read(READ_SECONDS).items():
                for key, row in batch.rows:
                    (keys[partition].discard if row is None else keys[partition].add)(key)
                advance(batch.position - left[partition])
                left[partition] = batch.position
                if batch.position >= ends[partition]:
                    reader.end(partition)
                    del left[partition]
        return {partition: sorted(found) for partition, found in keys.items()}

    def execute(
        self,
        resets: Sequence[PartitionReset],
        open_sequences: Mapping[int, Sequence[bytes]],
        producer: TransactionalKafkaProducer,
        changelog: str,
    ) -> None:
        """Tombstones and offsets in one transaction. Raises GroupNotEmpty when somebody joins meanwhile."""
        producer.init_transactions(CALL_SECONDS_MAX)
        producer.begin()
        time_ms = self._clock.now_ms()
        last = {}
        for reset in resets:
            keys = list(open_sequences[reset.partition])
            where = [reset.partition] * len(keys)
            producer.produce_many(changelog, where, keys, [None] * len(keys), [time_ms] * len(keys))
            last[reset.partition] = producer.produce_tracked(changelog, reset.partition, PROGRESS_KEY, None, time_ms)
        self._patiently(lambda: producer.flush(CALL_SECONDS_MAX))
        offsets = {
            reset.partition: (reset.next_offset, self._metadata(last[reset.partition].offset + 1)) for reset in resets
        }
        group = self._consumer.group_metadata()
        self._patiently(lambda: producer.send_offsets(self._topic, offsets, group, CALL_SECONDS_MAX))
        # Whoever joins from now on waits for this transaction's end before it reads the committed offsets.
        self.refuse_members()
        self._patiently(lambda: producer.commit(CALL_SECONDS_MAX))

    def execute_without_changelog(self, resets: Sequence[PartitionReset]) -> None:
        """Only the offsets; local stores are the caller's."""
        self._consumer.commit({reset.partition: (reset.next_offset, "") for reset in resets})

    def _metadata(self, changelog_offset: int) -> str:
        return CommitMetadata(
            changelog_next_offset=changelog_offset,
            watermark_ms=-1,
            model=NO_MODEL,
            worker="reset",
            topic_id=self._input_topic.topic_id,
            partitions=self._input_topic.partitions,
            changelog_first_offset=changelog_offset,
        ).encode()

    def _patiently(self, call: Callable[[], None]) -> None:
        deadline = self._clock.monotonic() + CALL_SECONDS_MAX
        while True:
            try:
                call()
            except Retriable:
                if self._clock.monotonic() >= deadline:
                    raise
            except TransactionAborted as error:
                raise ConfigError(f"nothing was changed: {error}", "run the command again") from error
            else:
                return
