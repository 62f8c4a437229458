"""The part of a simulated worker that hears of rebalances; decides by `worker.core.joint`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random

from tests.sim.client import SimulatedMember, Steps
from tests.sim.disk import SimulatedDisk
from tests.sim.owned import Batch, Owned
from tests.sim.restoring import RestoringWorker
from worker.core.joint import AssignmentToken, JointAction, PartitionIncident
from worker.core.partition import PartitionEvent, PartitionMachine
from worker.core.transaction import TransactionMachine, TransactionState


class MemberWorker(RestoringWorker, ABC):
    """What happens to the open transaction when partitions come and go. Subclasses get single decisions wrong."""

    member: SimulatedMember
    random: Random
    disks: list[SimulatedDisk]
    transaction: TransactionMachine
    assigned_to: dict[int, str]
    assignments_processed: dict[int, AssignmentToken]
    processed: list[Owned]
    batch: Batch | None
    in_callback: bool
    _assignments: int

    @abstractmethod
    def joint(self, incident: PartitionIncident) -> JointAction:
        """What the tables say."""

    @abstractmethod
    def commit(self) -> Steps[None]:
        """Everything that was processed, up to the outcome or until the deadline is over."""

    @abstractmethod
    def decide(self) -> Steps[None]:
        """Until the outcome of a commit under way is known or the deadline is over."""

    @abstractmethod
    def abort(self) -> Steps[None]:
        """Nothing since the last commit counts."""

    def poll(self) -> Steps[None]:
        """Rebalance callbacks; they never run inside of one another."""
        self.in_callback = True
        if self.member.expelled:
            self.member.joined = self.member.rejoined = False
            yield from self.on_lost(list(self.owned.values()))
        if not self.member.joined:
            self.member.join()
            self.kafka.group.balance(self.kafka.partitions, self.random)
        unwanted = self.member.unwanted()
        yield from self.on_revoked([self.owned[index] for index in sorted(unwanted) if index in self.owned])
        rejoined = self.member.rejoined
        taken = self.member.sync(unwanted)
        if rejoined:
            taken -= yield from self.on_rejoined(taken)
        for index in sorted(taken):
            self._assignments += 1
            self.owned[index] = Owned(index, PartitionMachine(self._assignments), self.disks[index])
            self.assigned_to[index] = self.member.member_id
        self.in_callback = False

    def on_rejoined(self, taken: set[int]) -> Steps[set[int]]:
        """What the new membership did not get is revoked; what it kept may have been somebody else's: lost.

        Returns those of `taken` that go on as they are.
        """
        self.counts["rejoined with partitions"] += bool(self.owned)
        yield from self.on_revoked([partition for index, partition in self.owned.items() if index not in taken])
        yield from self.on_lost(list(self.owned.values()))
        return set()

    def leave(self) -> Steps[None]:
        """The callbacks of a consumer that is closed."""
        self.in_callback = True
        if self.member.expelled:
            yield from self.on_lost(list(self.owned.values()))
        else:
            yield from self.on_revoked(list(self.owned.values()))
        self.member.leave()

    def on_revoked(self, partitions: Sequence[Owned]) -> Steps[None]:
        for partition in partitions:
            action = self.joint(PartitionIncident.REVOKED)
            if action is JointAction.COMMIT_OR_ABORT:
                yield from self.commit()
            elif action is JointAction.AWAIT_OUTCOME:
                yield from self.decide()
            self.close(partition)

    def on_lost(self, partitions: Sequence[Owned]) -> Steps[None]:
        for partition in partitions:
            if self.joint(PartitionIncident.LOST) is JointAction.ABORT:
                yield from self.abort()
            self.close(partition)

    def close(self, partition: Owned) -> None:
        """Whatever is not committed goes with the memory."""
        self.partition_event(partition, PartitionEvent.REVOKED)
        partition.disk.flush()
        del self.owned[partition.index]
        self.forget_processed(partition)
        if self.batch is not None:
            self.batch.partitions.pop(partition.index, None)

    def forget_processed(self, partition: Owned) -> None:
        """A transaction that is open goes on holding its records."""
        if partition in self.processed:
            self.processed.remove(partition)
        if self.transaction.state is TransactionState.IDLE:
            self.assignments_processed.pop(partition.index, None)
