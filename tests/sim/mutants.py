"""Workers that get one decision wrong. The oracles must catch each of them, or they prove nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.sim.client import Steps
from tests.sim.disk import Rows
from tests.sim.kafka import Entry, Reply
from tests.sim.owned import Owned
from tests.sim.worker import Fetched, SimulatedWorker
from worker.core.group_metadata import GroupMetadata
from worker.core.joint import AssignmentToken, refuse_to_send_offsets
from worker.core.restore import Committed, Halt, RestorePlan
from worker.core.transaction import TransactionEvent


class OffsetsOutsideOfTheTransaction(SimulatedWorker):
    """Commits the input offsets after the transaction, as at-least-once does."""

    def send_offsets(self, targets: dict[int, tuple[int, str]], group: GroupMetadata) -> Steps[None]:
        del targets, group
        yield

    def store(self) -> Steps[None]:
        yield
        if self.batch is not None:
            self.kafka.commit_offsets(self.batch.targets)
        yield from super().store()


class StoreBeforeCommit(SimulatedWorker):
    """Writes the local store while the transaction is undecided."""

    def send_offsets(self, targets: dict[int, tuple[int, str]], group: GroupMetadata) -> Steps[None]:
        for partition in self.processed:
            self.write(partition, partition.changes())
        yield from super().send_offsets(targets, group)


class PositionWrittenApart(SimulatedWorker):
    """Writes the position and then the rows, in two batches."""

    def write(self, partition: Owned, changes: Rows) -> None:
        partition.disk.write({}, partition.position(), self.kafka.now)
        partition.disk.write(changes, None, self.kafka.now)


class UnansweredMeansCommitted(SimulatedWorker):
    """Takes a commit that was not answered for a success."""

    def give_up_waiting(self) -> None:
        batch, self.batch = self.batch, None
        assert batch is not None
        self.event(TransactionEvent.COMMIT_SUCCEEDED)
        for index, partition in batch.partitions.items():
            self.write(partition, batch.changes[index])
            partition.committed()
        self.all_processed()


class UnansweredMeansAborted(SimulatedWorker):
    """Takes a commit that was not answered for a failure and processes the input again."""

    def give_up_waiting(self) -> None:
        self.batch = None
        self.event(TransactionEvent.ABORTED)
        self.roll_back([partition for partition in self.owned.values() if partition.running])


class StatesNotRolledBack(SimulatedWorker):
    """Reads the input again after an abort, with states that saw it already."""

    def roll_back(self, partitions: Sequence[Owned]) -> None:
        for partition in partitions:
            partition.before.clear()
        super().roll_back(partitions)


class NotSoughtBack(SimulatedWorker):
    """Rolls the states back after an abort and goes on after the records that were aborted."""

    def roll_back(self, partitions: Sequence[Owned]) -> None:
        positions = {partition.index: partition.next_offset for partition in partitions}
        super().roll_back(partitions)
        for partition in partitions:
            partition.next_offset = positions[partition.index]


class CarriedOverARebalance(SimulatedWorker):
    """Neither commits nor aborts when partitions go, and keeps what it processed of them. Not wrong by itself."""

    def on_revoked(self, partitions: Sequence[Owned]) -> Steps[None]:
        yield
        for partition in partitions:
            self.close(partition)

    def on_lost(self, partitions: Sequence[Owned]) -> Steps[None]:
        yield from self.on_revoked(partitions)

    def forget_processed(self, partition: Owned) -> None:
        """Keeps it."""


class OwnershipTokenIgnored(CarriedOverARebalance):
    """Relies on the broker, which does not check who owns a partition."""

    def refusal(self, group: GroupMetadata, assignments_now: dict[int, AssignmentToken]) -> str:
        return refuse_to_send_offsets(group, {}, assignments_now)


class RejoiningUnnoticed(SimulatedWorker):
    """Takes a member that joined again in the background for the one that it was, until a callback tells."""

    def token(self, partition: Owned) -> AssignmentToken:
        return partition.machine.assignment_id, ""

    def refusal(self, group: GroupMetadata, assignments_now: dict[int, AssignmentToken]) -> str:
        return super().refusal(group, {index: (number, "") for index, (number, _) in assignments_now.items()})


class KeptWhileRejoining(SimulatedWorker):
    """Goes on with the states of partitions that a new membership kept."""

    def on_rejoined(self, taken: set[int]) -> Steps[set[int]]:
        yield from self.on_revoked([partition for index, partition in self.owned.items() if index not in taken])
        self.assigned_to |= dict.fromkeys(self.owned, self.member.member_id)
        return taken & self.owned.keys()


class EmptyMemberIdAccepted(SimulatedWorker):
    """Sends offsets under an identity that is nobody's, which a broker accepts from anybody."""

    def group_metadata(self) -> bytes:
        metadata = super().group_metadata()
        return metadata if self.member.member_id else b"CGMDv2:\xff\xff\xff\xffgroup\0\0\x01"

    def refusal(self, group: GroupMetadata, assignments_now: dict[int, AssignmentToken]) -> str:
        unasked = {index: (number, self.assigned_to[index]) for index, (number, _) in assignments_now.items()}
        return super().refusal(GroupMetadata(b"", group.group, 0, "somebody"), unasked)


class RevokedWithoutCommit(SimulatedWorker):
    """Lets a partition go and forgets that its outputs are in the open transaction."""

    def on_revoked(self, partitions: Sequence[Owned]) -> Steps[None]:
        yield
        for partition in partitions:
            self.assignments_processed.pop(partition.index, None)
            self.close(partition)


class LostPartitionStored(SimulatedWorker):
    """Saves what it has of a lost partition."""

    def on_lost(self, partitions: Sequence[Owned]) -> Steps[None]:
        for partition in self.processed:
            self.write(partition, partition.changes())
        yield from super().on_lost(partitions)


class OldAssignmentAdmitted(SimulatedWorker):
    """Takes records that were fetched under an assignment that is over."""

    def admitted(self, fetched: Fetched) -> bool:
        partition = self.owned.get(fetched.index)
        if partition is None or not partition.running or partition.next_offset > fetched.start:
            return False
        partition.next_offset = fetched.start
        return True


class StatesOfADamagedStoreKept(SimulatedWorker):
    """Does not look whether a store is damaged."""

    def damaged(self, partition: Owned) -> bool:
        del partition
        return False


class RestoredToTheLastStableOffset(SimulatedWorker):
    """Ignores the restore target of the committed offset: what a slow marker still hides is left out."""

    def restore_target_reached(self, partition: Owned) -> bool:
        assert partition.progress is not None
        log = self.kafka.logs["changelog", partition.index]
        return partition.progress.position >= min(partition.progress.target, log.last_stable_offset)


class RestoredUncommitted(SimulatedWorker):
    """Reads the changelog without read_committed."""

    def changelog(self, index: int, start: int, end: int) -> tuple[list[Entry], int]:
        return self.kafka.logs["changelog", index].read(start, end, committed_only=False), end


class UnstableOffsetsRead(SimulatedWorker):
    """Does not wait until the former owner's transaction is decided."""

    def committed(self, index: int) -> tuple[int, str] | Reply | None:
        return self.kafka.committed(index, stable=False)


class StaleDiskTrusted(SimulatedWorker):
    """Brings any disk up to date, also one that is older than the tombstones it has missed."""

    def tombstone_retention(self) -> int:
        return 1 << 40


class SuspectProducerKept(SimulatedWorker):
    """Goes on with a producer whose request may still be on its way."""

    def replace_producer(self) -> Steps[None]:
        yield


class WatermarkForgotten(SimulatedWorker):
    """Takes the rows over and not the event time that idle timeouts are measured by."""

    def plan(self, partition: Owned, committed: Committed | None) -> RestorePlan | Halt:
        plan = super().plan(partition, committed)
        return replace(plan, watermark_ms=-1) if isinstance(plan, RestorePlan) else plan


class OffsetWithoutItsChangelogPosition(SimulatedWorker):
    """Names the restore target of the commit before."""

    def metadata(self, partition: Owned) -> str:
        changelog_next_offset = partition.changelog_next_offset
        partition.changelog_next_offset = partition.committed_changelog_next_offset
        try:
            return super().metadata(partition)
        finally:
            partition.changelog_next_offset = changelog_next_offset


MUTANTS: tuple[type[SimulatedWorker], ...] = (
    OffsetsOutsideOfTheTransaction,
    StoreBeforeCommit,
    PositionWrittenApart,
    UnansweredMeansCommitted,
    UnansweredMeansAborted,
    StatesNotRolledBack,
    NotSoughtBack,
    OwnershipTokenIgnored,
    RejoiningUnnoticed,
    KeptWhileRejoining,
    EmptyMemberIdAccepted,
    RevokedWithoutCommit,
    LostPartitionStored,
    OldAssignmentAdmitted,
    StatesOfADamagedStoreKept,
    RestoredToTheLastStableOffset,
    RestoredUncommitted,
    UnstableOffsetsRead,
    StaleDiskTrusted,
    SuspectProducerKept,
    WatermarkForgotten,
    OffsetWithoutItsChangelogPosition,
)
