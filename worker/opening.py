"""From assigned to running without a changelog: open the store, decide where to begin."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from worker.core.partition import PartitionEvent
from worker.errors import StateTorn, StoreCorrupted
from worker.partitions import OwnedPartition
from worker.ports import Consumer, Store, StorePosition

log = logging.getLogger(__name__)

OpenStore = Callable[[int], Store]
OffsetBounds = Callable[[int], tuple[int, int]]
"""Partition → (low watermark, high watermark) of the input."""


class Opener(Protocol):
    """Brings assigned partitions to running; a partition that is ready does not wait for the others."""

    def begin(self, partitions: Sequence[OwnedPartition]) -> None:
        """Take over newly assigned partitions; called outside the rebalance callback."""

    def progress(self) -> list[OwnedPartition]:
        """Do a bounded piece of work; return the partitions that can run now. Their `next_offset` says where from."""

    def busy(self) -> bool:
        """Whether `progress` has anything to do."""

    def forget(self, partition: OwnedPartition) -> None:
        """The partition was revoked or lost."""


class LocalOpener:
    """Without a changelog the local store is the only state: what it lacks is read again from the input."""

    def __init__(
        self,
        *,
        open_store: OpenStore,
        consumer: Consumer,
        bounds: OffsetBounds,
        start: str,
        prepare: Callable[[OwnedPartition], None],
    ) -> None:
        self._open_store = open_store
        self._consumer = consumer
        self._bounds = bounds
        self._start = start
        self._prepare = prepare
        self._waiting: list[OwnedPartition] = []

    def begin(self, partitions: Sequence[OwnedPartition]) -> None:
        self._waiting.extend(partitions)

    def busy(self) -> bool:
        return bool(self._waiting)

    def forget(self, partition: OwnedPartition) -> None:
        if partition in self._waiting:
            self._waiting.remove(partition)

    def progress(self) -> list[OwnedPartition]:
        """Raises StateTorn, StateFromAnotherModel, StateDirectoryInUse, BrokerUnreachable."""
        ready, self._waiting = self._waiting, []
        if not ready:
            return []
        committed = self._consumer.committed([partition.index for partition in ready])
        for partition in ready:
            partition.store = self._opened(partition.index)
            partition.machine.apply(PartitionEvent.STORE_OPENED)
            offset = committed.get(partition.index)
            position = self._position(partition.index, partition.store, offset)
            partition.begin_at(position)
            partition.group_is_behind = offset is not None and offset < position.input_next_offset
            self._prepare(partition)
            partition.machine.apply(PartitionEvent.RESTORE_COMPLETED)
        return ready

    def _opened(self, index: int) -> Store:
        try:
            return self._open_store(index)
        except StoreCorrupted as error:
            raise StateTorn(
                f"the store of partition {index} is damaged ({error.reason}) and state.changelog is off",
                f"move {error.path} away; open sequences of the partition are lost",
            ) from error

    def _position(self, index: int, store: Store, committed: int | None) -> StorePosition:
        low, high = self._bounds(index)
        position = store.position
        if position is None:
            if committed is None:
                return StorePosition(low if self._start == "earliest" else high)
            log.warning(
                "partition %d: no local state, but the group has committed offset %d; open sequences begin anew",
                index,
                committed,
            )
            position = StorePosition(committed)
        if not low <= position.input_next_offset <= high:
            raise StateTorn(
                f"partition {index} should resume at offset {position.input_next_offset}, the topic holds {low} to "
                f"{high}: it was re-created, or samples were deleted before they were read",
                "move offsets and state together with 'lstm-worker reset'",
            )
        return position
