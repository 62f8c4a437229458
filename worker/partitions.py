"""The partitions that this worker owns: position, local store, idle index of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from worker.core.commit_metadata import CommitMetadata
from worker.core.idle import IdleIndex
from worker.core.partition import PartitionEvent, PartitionMachine, PartitionState
from worker.core.restore import InputTopic
from worker.ports import Store, StorePosition


@dataclass(slots=True)
class OwnedPartition:
    """One assignment of one input partition; a re-assignment makes a new object.

    `next_offset` and `watermark_ms` run ahead of `committed_*` by what is not committed yet.
    """

    index: int
    machine: PartitionMachine
    store: Store | None = None
    next_offset: int = 0
    watermark_ms: int = -1
    committed_next_offset: int = 0
    committed_watermark_ms: int = -1
    changelog_next_offset: int = 0
    committed_changelog_next_offset: int = 0
    changelog_first_offset: int = 0
    """Of the last reset; every commit names it again."""
    idle: IdleIndex | None = None
    group_is_behind: bool = False
    """The group's committed offset is older than the restored state: a commit is due though no record was processed."""
    rewinding: bool = False
    """Rolled back; records are refused until the consumer was sent back to `next_offset`."""

    @property
    def running(self) -> bool:
        return self.machine.state is PartitionState.RUNNING

    @property
    def changed(self) -> bool:
        """Whether a commit would change anything."""
        return self.group_is_behind or self.next_offset != self.committed_next_offset

    def begin_at(self, position: StorePosition) -> None:
        """Everything below the position is committed."""
        self.next_offset = self.committed_next_offset = position.input_next_offset
        self.watermark_ms = self.committed_watermark_ms = position.watermark_ms
        self.changelog_next_offset = self.committed_changelog_next_offset = position.changelog_next_offset

    def committed(self) -> None:
        self.group_is_behind = False
        self.committed_next_offset = self.next_offset
        self.committed_watermark_ms = self.watermark_ms
        self.committed_changelog_next_offset = self.changelog_next_offset

    def rollback(self) -> None:
        """Back to the last commit; the consumer has to be sent back as well."""
        self.rewinding = True
        self.next_offset = self.committed_next_offset
        self.watermark_ms = self.committed_watermark_ms
        self.changelog_next_offset = self.committed_changelog_next_offset

    def rewound(self) -> None:
        """The consumer was sent back."""
        self.rewinding = False
        self.machine.apply(PartitionEvent.POSITION_RESET)

    def position(self) -> StorePosition:
        """What a store write now would record."""
        return StorePosition(self.next_offset, self.changelog_next_offset, self.watermark_ms)

    def close(self) -> None:
        """Close the store; the partition's life is over."""
        if self.machine.state is not PartitionState.REVOKED:
            self.machine.apply(PartitionEvent.REVOKED)
        if self.store is not None:
            self.store.close()
            self.store = None


@dataclass(frozen=True, slots=True)
class CommitIdentity:
    """Who commits and to which topic; with a partition's position it makes a commit's metadata."""

    model: str
    worker: str
    input_topic: InputTopic

    def metadata(self, partition: OwnedPartition) -> str:
        """Of a commit of everything that was processed of the partition."""
        return CommitMetadata(
            changelog_next_offset=partition.changelog_next_offset,
            watermark_ms=partition.watermark_ms,
            model=self.model,
            worker=self.worker,
            topic_id=self.input_topic.topic_id,
            partitions=self.input_topic.partitions,
            changelog_first_offset=partition.changelog_first_offset,
        ).encode()


class Ownership:
    """All partitions of the current assignment, by index."""

    def __init__(self) -> None:
        self._owned: dict[int, OwnedPartition] = {}
        self._assignments = 0

    def __iter__(self) -> Iterator[OwnedPartition]:
        return iter(list(self._owned.values()))

    def __len__(self) -> int:
        return len(self._owned)

    def __contains__(self, index: int) -> bool:
        return index in self._owned

    def __getitem__(self, index: int) -> OwnedPartition:
        return self._owned[index]

    def get(self, index: int) -> OwnedPartition | None:
        return self._owned.get(index)

    def assign(self, index: int) -> OwnedPartition:
        self._assignments += 1
        partition = OwnedPartition(index, PartitionMachine(assignment_id=self._assignments))
        self._owned[index] = partition
        return partition

    def drop(self, index: int) -> None:
        del self._owned[index]

    def running(self) -> set[int]:
        return {index for index, partition in self._owned.items() if partition.running}

    def changed(self) -> Iterable[OwnedPartition]:
        return [partition for partition in self._owned.values() if partition.changed]
