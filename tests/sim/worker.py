"""A worker of the simulation: the worker's own tables and decisions, between simulated clients and disks.

Nothing is decided here that `worker.core` decides: which event may follow, what a revocation means for the open
transaction, whether offsets may be sent, from where to restore and when that is done, what a commit's metadata says.
Every `yield` is a moment at which the process may be killed or anything else may happen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from random import Random

from tests.sim.client import SimulatedMember, SimulatedProducer, Steps, Weather
from tests.sim.disk import Rows, SimulatedDisk
from tests.sim.kafka import Kafka, Reply
from tests.sim.membership import MemberWorker
from tests.sim.owned import Batch, Owned, Record
from worker.core.commit_metadata import CommitMetadata
from worker.core.commit_policy import CommitPolicy
from worker.core.group_metadata import GroupMetadata, parse_group_metadata
from worker.core.joint import (
    AssignmentToken,
    JointAction,
    PartitionIncident,
    joint_action,
    refuse_to_send_offsets,
)
from worker.core.partition import PartitionEvent
from worker.core.transaction import TransactionEvent, TransactionMachine, TransactionState
from worker.errors import Fenced, OutcomeUnknown, Retriable, StateTorn, TransactionAborted

COMMIT_ATTEMPTS = (2, 3)
COMMIT_INTERVAL = 40
COMMIT_RECORDS = 5
FETCHED_MAX = 2
FETCHED_RECORDS_MAX = 3
FETCH_TURNS = (0, 0, 0, 1, 8)
"""How many turns later fetched records are handed over; one of them is drawn."""
MODEL = "0123abcd"


@dataclass(slots=True)
class Fetched:
    """Records that the client holds; they may be handed over some turns later, after callbacks."""

    index: int
    assignment_id: int
    start: int
    records: Sequence[Record]
    due_turn: int


class SimulatedWorker(MemberWorker):
    """One worker over all its lives; `life` is one process. Subclasses get single decisions wrong."""

    def __init__(self, name: str, kafka: Kafka, random: Random, weather: Weather, counts: Counter[str]) -> None:
        self.name = name
        self.kafka = kafka
        self.random = random
        self.weather = weather
        self.counts = counts
        self.disks = [SimulatedDisk() for _ in range(kafka.partitions)]
        self.polls_while_committing = random.random() < 0.7
        self.commit_attempts = random.choice(COMMIT_ATTEMPTS)
        self._assignments = 0
        self.start_process()

    def start_process(self) -> None:
        """Memory is empty."""
        self.producer = SimulatedProducer(self.kafka, f"id-{self.name}", self.random, self.weather, self.counts)
        self.member = SimulatedMember(self.kafka, self.name)
        self.transaction = TransactionMachine()
        self.policy = CommitPolicy(COMMIT_INTERVAL, records_max=COMMIT_RECORDS)
        self.owned: dict[int, Owned] = {}
        self.processed: list[Owned] = []
        self.batch: Batch | None = None
        self.fetched: list[Fetched] = []
        self.in_callback = False
        self.stopping = False
        self.assigned_to: dict[int, str] = {}
        self.assignments_processed: dict[int, AssignmentToken] = {}

    def life(self) -> Steps[None]:
        """One process, until it is killed, stopped or fenced. Raises StateTorn where it must halt."""
        try:
            yield from self._initialise()
            for turn in count():
                yield
                if self.stopping:
                    break
                yield from self.turn(turn)
            yield from self.leave()
        except Fenced:
            self.event(TransactionEvent.FENCED)
            self.counts["exits: fenced"] += 1
            yield from self.leave()

    def turn(self, number: int) -> Steps[None]:
        if self.transaction.state is TransactionState.UNKNOWN:
            yield from self.recover()
        self.fetch(number)
        yield from self.poll()
        yield from self.restore()
        if self.transaction.state is TransactionState.UNKNOWN:
            return
        fetched = next((fetched for fetched in self.fetched if fetched.due_turn <= number), None)
        if fetched is not None:
            self.fetched.remove(fetched)
            if self.admitted(fetched):
                yield from self.process(self.owned[fetched.index], fetched.records)
        if self.policy.should_commit(self.kafka.now):
            yield from self.commit()

    def event(self, event: TransactionEvent) -> None:
        self.counts[f"transaction: {self.transaction.state.name} {event.name}"] += 1
        self.transaction.apply(event)

    def joint(self, incident: PartitionIncident) -> JointAction:
        self.counts[f"joint: {incident.name} {self.transaction.state.name}"] += 1
        return joint_action(incident, self.transaction.state)

    def _initialise(self) -> Steps[None]:
        while True:
            try:
                yield from self.producer.init_transactions()
            except Retriable:
                continue
            return

    # ---- processing

    def fetch(self, turn: int) -> None:
        """The next records of one more partition."""
        held = {fetched.index for fetched in self.fetched}
        wanted = [partition for partition in self.owned.values() if partition.running and partition.index not in held]
        if not wanted or len(held) == FETCHED_MAX:
            return
        partition = self.random.choice(wanted)
        start = partition.next_offset
        records = self.kafka.input[partition.index][start : start + self.random.randint(1, FETCHED_RECORDS_MAX)]
        if records:
            due_turn = turn + self.random.choice(FETCH_TURNS)
            self.fetched.append(Fetched(partition.index, partition.machine.assignment_id, start, records, due_turn))

    def admitted(self, fetched: Fetched) -> bool:
        """Not those of another assignment, nor of before a roll-back."""
        partition = self.owned.get(fetched.index)
        if partition is None or partition.machine.assignment_id != fetched.assignment_id:
            return self.joint(PartitionIncident.ASSIGNMENT_REPLACED) is not JointAction.REFUSE
        return partition.running and partition.next_offset == fetched.start

    def process(self, partition: Owned, records: Sequence[Record]) -> Steps[None]:
        """A few records; their outputs join the transaction."""
        if self.damaged(partition):
            if self.joint(PartitionIncident.STORE_CORRUPTED) is JointAction.ABORT_AND_SET_ASIDE:
                yield from self.abort()
            self.set_aside(partition)
            self.forget_processed(partition)
            return
        self.partition_event(partition, PartitionEvent.BATCH_ADMITTED)
        if any(row.last_offset >= partition.next_offset for row in partition.rows.values()):
            raise StateTorn("a state is ahead of the input")
        outputs = partition.process(records)
        if partition not in self.processed:
            self.processed.append(partition)
            self.assignments_processed.setdefault(partition.index, self.token(partition))
        self.policy.processed(self.kafka.now, len(records))
        try:
            if outputs:
                yield from self.begin()
                for output in outputs:
                    yield from self.producer.produce(("output", partition.index), output.offset, output)
                self.event(TransactionEvent.PRODUCED)
        except TransactionAborted:
            yield from self.abort()
        except OutcomeUnknown:
            self.lose_outcome()

    def begin(self) -> Steps[None]:
        """Unless a transaction is open already."""
        if self.transaction.state is not TransactionState.IDLE:
            return
        if self.producer.suspect:
            yield from self.replace_producer()
        self.producer.begin()
        self.event(TransactionEvent.BEGUN)

    def replace_producer(self) -> Steps[None]:
        try:
            yield from self.producer.init_transactions()
        except Retriable as error:
            raise OutcomeUnknown(str(error)) from error
        self.event(TransactionEvent.PRODUCER_REPLACED)

    # ---- the commit

    def commit(self) -> Steps[None]:
        changed = [partition for partition in self.processed if partition.changed]
        if not changed and self.transaction.state is TransactionState.IDLE:
            self.policy.did_commit(self.kafka.now)
            return
        try:
            yield from self.prepare(changed)
            yield from self.decide()
        except TransactionAborted:
            yield from self.abort()
        except OutcomeUnknown:
            self.lose_outcome()

    def prepare(self, changed: Sequence[Owned]) -> Steps[None]:
        """Everything up to and with the offsets."""
        yield from self.begin()
        for partition in changed:
            for key, row in sorted(partition.changes().items()):
                offset = yield from self.producer.produce(("changelog", partition.index), key, row)
                partition.changelog_next_offset = offset + 1
            self.event(TransactionEvent.PRODUCED)
        group = parse_group_metadata(self.group_metadata())
        now = {index: (each.machine.assignment_id, group.member_id) for index, each in self.owned.items()}
        refusal = self.refusal(group, now)
        if refusal:
            self.counts["refused here: changed hands" if group.can_fence else "refused here: cannot fence"] += 1
            raise TransactionAborted(refusal)
        batch = Batch(
            {partition.index: partition for partition in changed},
            {partition.index: (partition.next_offset, self.metadata(partition)) for partition in changed},
            {partition.index: partition.changes() for partition in changed},
        )
        yield from self.send_offsets(batch.targets, group)
        self.event(TransactionEvent.OFFSETS_SENT)
        self.batch = batch

    def send_offsets(self, targets: dict[int, tuple[int, str]], group: GroupMetadata) -> Steps[None]:
        yield from self.producer.send_offsets(targets, group.generation, group.member_id)

    def group_metadata(self) -> bytes:
        return self.member.group_metadata()

    def token(self, partition: Owned) -> AssignmentToken:
        return partition.machine.assignment_id, self.assigned_to[partition.index]

    def refusal(self, group: GroupMetadata, assignments_now: dict[int, AssignmentToken]) -> str:
        return refuse_to_send_offsets(group, self.assignments_processed, assignments_now)

    def metadata(self, partition: Owned) -> str:
        return CommitMetadata(partition.changelog_next_offset, partition.watermark, MODEL, self.name).encode()

    def decide(self) -> Steps[None]:
        """Until the outcome is known or the deadline is over; a callback in between may have decided it."""
        for _ in range(self.commit_attempts):
            if self.transaction.state is not TransactionState.COMMITTING:
                return
            try:
                yield from self.producer.commit()
            except Retriable:
                self.event(TransactionEvent.COMMIT_RETRIABLE)
                if self.polls_while_committing and not self.in_callback:
                    yield from self.poll()
            except TransactionAborted:
                yield from self.abort()
                return
            except OutcomeUnknown:
                self.lose_outcome()
                return
            else:
                self.event(TransactionEvent.COMMIT_SUCCEEDED)
                yield from self.store()
                return
        if self.transaction.state is TransactionState.COMMITTING:
            self.give_up_waiting()

    def give_up_waiting(self) -> None:
        """The deadline is over."""
        self.lose_outcome()

    def store(self) -> Steps[None]:
        """One write for each partition, each atomic with its position."""
        batch, self.batch = self.batch, None
        assert batch is not None
        for index, partition in batch.partitions.items():
            self.write(partition, batch.changes[index])
            partition.committed()
            yield
        self.all_processed()

    def all_processed(self) -> None:
        """Committed or rolled back."""
        self.processed.clear()
        self.assignments_processed.clear()
        self.policy.did_commit(self.kafka.now)

    def write(self, partition: Owned, changes: Rows) -> None:
        partition.disk.write(changes, partition.position(), self.kafka.now)

    # ---- what can go wrong

    def abort(self) -> Steps[None]:
        """Nothing since the last commit counts."""
        self.batch = None
        if self.transaction.state in (TransactionState.OPEN, TransactionState.COMMITTING):
            try:
                yield from self._aborted()
            except (Retriable, OutcomeUnknown):
                self.event(TransactionEvent.OUTCOME_LOST)
            else:
                self.event(TransactionEvent.ABORTED)
        self.roll_back([partition for partition in self.owned.values() if partition.running])

    def _aborted(self) -> Steps[None]:
        for attempt in range(self.commit_attempts):
            try:
                yield from self.producer.abort()
            except Retriable:
                if attempt == self.commit_attempts - 1:
                    raise
            else:
                return

    def roll_back(self, partitions: Sequence[Owned]) -> None:
        for partition in partitions:
            self.counts[f"partition: {partition.machine.state.name} POSITION_RESET"] += 1
            partition.roll_back()
        self.all_processed()

    def lose_outcome(self) -> None:
        """Without a commit under way nothing is in doubt but the producer."""
        self.event(TransactionEvent.OUTCOME_LOST)
        if self.batch is None:
            self.roll_back([partition for partition in self.owned.values() if partition.running])

    def recover(self) -> Steps[None]:
        """A new producer ends the old transaction; then the committed offsets tell."""
        try:
            yield from self.producer.init_transactions()
        except Retriable:
            self.event(TransactionEvent.OUTCOME_LOST)
            return
        batch = self.batch
        if batch is None:
            self.event(TransactionEvent.RECOVERED)
            return
        found: dict[int, tuple[int, str] | None] = {}
        for index in batch.partitions:
            while isinstance(reply := self.committed(index), Reply):
                yield
            found[index] = reply
        if all(found[index] == batch.targets[index] for index in found):
            self.event(TransactionEvent.RECOVERED)
            self.counts["recovered: committed"] += 1
            yield from self.store()
            return
        for index, partition in batch.partitions.items():
            answer = found[index]
            if answer is not None and answer[0] != partition.committed_next_offset:
                raise Fenced("committed by another member")
        self.event(TransactionEvent.RECOVERED)
        self.counts["recovered: not committed"] += 1
        self.batch = None
        self.roll_back(list(batch.partitions.values()))
