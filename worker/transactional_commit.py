"""Exactly once: outputs, dead letters, changelog and input offsets in one Kafka transaction, then the store.

States that are not committed live in the table only. The commit is one function of numbered steps; a crash between any
two leaves either nothing (the transaction is aborted, the input is read again) or everything (the store is brought up
from the changelog). The changelog's next offset travels in the offset commit's metadata as the restore target.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from worker.adapters.kafka_consumer import KafkaConsumer
from worker.adapters.kafka_producer import TrackedRecord, TransactionalKafkaProducer
from worker.core.joint import AssignmentToken, JointAction, PartitionIncident, joint_action, refuse_to_send_offsets
from worker.core.slots import StreamTable
from worker.core.transaction import TransactionEvent, TransactionMachine, TransactionState
from worker.core.types import DeadLetter, PredictionBatch
from worker.delivery import OutputTopics, send_dead_letters, send_predictions
from worker.errors import Fenced, OutcomeUnknown, Retriable, TransactionAborted
from worker.partitions import CommitIdentity, OwnedPartition, Ownership
from worker.ports import Clock, Hook

log = logging.getLogger(__name__)

CALL_SECONDS_MAX = 5.0
"""One client call; shorter than any transaction timeout, so that a retry still fits."""

Changes = Mapping[int, Sequence[tuple[bytes, bytes | None]]]
Targets = dict[int, tuple[int, str]]
"""Partition → next input offset and its commit's metadata."""


class TransactionalDelivery:
    """One transaction at a time, begun with the first output after a commit."""

    def __init__(
        self,
        *,
        producer: TransactionalKafkaProducer,
        consumer: KafkaConsumer,
        table: StreamTable,
        ownership: Ownership,
        topics: OutputTopics,
        changelog: str,
        identity: CommitIdentity,
        commit_seconds_max: float,
        clock: Clock,
        hook: Hook,
        on_recycle: Callable[[str], None],
    ) -> None:
        self._producer = producer
        self._consumer = consumer
        self._table = table
        self._ownership = ownership
        self._topics = topics
        self._changelog = changelog
        self._identity = identity
        self._commit_seconds_max = commit_seconds_max
        self._clock = clock
        self._hook = hook
        self._on_recycle = on_recycle
        self._machine = TransactionMachine()
        self._assignments: dict[int, AssignmentToken] = {}

    def send(self, predictions: PredictionBatch, values: Sequence[bytes]) -> None:
        """Queue outputs in the open transaction. Raises TransactionAborted, Fenced."""

        def steps() -> Targets:
            self._begin_once()
            self._note_assignments(np.unique(predictions.partitions).tolist())
            send_predictions(self._producer, self._topics, predictions, values)
            self._machine.apply(TransactionEvent.PRODUCED)
            return {}

        self._resolved(steps)

    def commit(self, partitions: Sequence[OwnedPartition], letters: Sequence[DeadLetter]) -> None:
        """Commit everything since the last commit. Raises TransactionAborted, Fenced, StoreFull, StoreCorrupted."""
        changes = self._table.changes()
        targets: Targets = {}

        def steps() -> Targets:
            self._begin_once()
            self._note_assignments([partition.index for partition in partitions])
            # 1. Dead letters and changed rows follow the outputs into the transaction.
            send_dead_letters(self._producer, self._topics, letters)
            self._hook("dead_letters_sent")
            last_rows = self._send_changelog(partitions, changes)
            self._hook("changelog_sent")
            # 2. Everything is on the broker, and the changelog's offsets are known.
            self._until_deadline(lambda: self._producer.flush(CALL_SECONDS_MAX))
            for partition in partitions:
                if partition.index in last_rows:
                    partition.changelog_next_offset = last_rows[partition.index].offset + 1
            self._hook("flushed")
            # 3. The group's identity as of now must be able to fence, and no partition may have changed hands since its
            # records were processed.
            group = self._consumer.group_metadata()
            now = {partition.index: (partition.machine.assignment_id, group.member_id) for partition in self._ownership}
            if refusal := refuse_to_send_offsets(group, self._assignments, now):
                raise TransactionAborted(refusal)
            # 4. Input offsets, with the restore target in each one's metadata.
            targets.update({each.index: (each.next_offset, self._identity.metadata(each)) for each in partitions})
            topic = self._topics.input
            self._until_deadline(lambda: self._producer.send_offsets(topic, targets, group, CALL_SECONDS_MAX))
            self._machine.apply(TransactionEvent.OFFSETS_SENT)
            self._hook("offsets_sent")
            # 5. The decision. A timeout means "ask again", never "aborted".
            self._decide()
            self._hook("committed")
            return targets

        self._resolved(steps, targets)
        self._store(partitions, changes)

    def abandon(self, partitions: Sequence[OwnedPartition]) -> bool:
        """Abort the open transaction: it holds records of all partitions, so all of them go back."""
        del partitions
        if joint_action(PartitionIncident.LOST, self._machine.state) is not JointAction.ABORT:
            return False
        self._abort("partitions were lost")
        return True

    def supersede(self, partition: OwnedPartition, keys: Sequence[bytes]) -> None:
        """Never asked for: rows of a transaction that did not commit are invisible."""
        raise AssertionError(f"partition {partition.index} has {len(keys)} uncommitted rows in a committed read")

    def close(self) -> None:
        """An open transaction is aborted."""
        self._producer.close()

    # ---- the steps

    def _begin_once(self) -> None:
        if self._machine.state is not TransactionState.IDLE:
            return
        if self._producer.suspect:
            self._recycle("suspect")
            self._machine.apply(TransactionEvent.PRODUCER_REPLACED)
        self._producer.begin()
        self._machine.apply(TransactionEvent.BEGUN)
        self._assignments = {}
        self._hook("begun")

    def _note_assignments(self, partitions: Sequence[int]) -> None:
        """Under which assignment each partition's first records of this transaction were processed."""
        for index in partitions:
            token = self._ownership[index].machine.assignment_id, self._consumer.assigned_to(index)
            self._assignments.setdefault(index, token)

    def _send_changelog(self, partitions: Sequence[OwnedPartition], changes: Changes) -> dict[int, TrackedRecord]:
        """Rows and tombstones of each partition; the last one of a partition tells the changelog's offset."""
        tracked: dict[int, TrackedRecord] = {}
        time_ms = self._clock.now_ms()
        for index in [partition.index for partition in partitions if changes.get(partition.index)]:
            rows = changes[index]
            count = len(rows) - 1
            keys, values = [key for key, _ in rows], [row for _, row in rows]
            self._producer.produce_many(self._changelog, [index] * count, keys[:-1], values[:-1], [time_ms] * count)
            tracked[index] = self._producer.produce_tracked(self._changelog, index, keys[-1], values[-1], time_ms)
        return tracked

    def _decide(self) -> None:
        try:
            self._until_deadline(lambda: self._producer.commit(CALL_SECONDS_MAX))
        except Retriable as error:
            raise OutcomeUnknown(f"the commit was not answered in time: {error}") from error
        self._machine.apply(TransactionEvent.COMMIT_SUCCEEDED)

    def _store(self, partitions: Sequence[OwnedPartition], changes: Changes) -> None:
        # 6. Only now the stores: they hold committed rows and nothing else.
        for partition in partitions:
            assert partition.store is not None, "a running partition has a store"
            partition.store.write(changes.get(partition.index, ()), partition.position())
            self._hook("stored")
        # 7. The rows in memory are the committed ones.
        self._table.committed()
        for partition in partitions:
            partition.committed()
        self._hook("done")

    # ---- what can go wrong

    def _resolved(self, steps: Callable[[], Targets], targets: Targets | None = None) -> None:
        """Run the steps of a transaction; afterwards it is open, committed or aborted, never in doubt.

        Raises TransactionAborted when nothing of it counts, Fenced when another instance took over.
        """
        try:
            steps()
        except (TransactionAborted, Retriable) as error:
            self._abort(str(error))
            raise TransactionAborted(str(error)) from error
        except OutcomeUnknown as error:
            log.warning("the transaction's outcome is not known: %s", error)
            self._machine.apply(TransactionEvent.OUTCOME_LOST)
            if not self._recover(targets or {}):
                raise TransactionAborted(f"resolved as not committed after: {error}") from error
            log.warning("resolved as committed")
        except Fenced:
            self._machine.apply(TransactionEvent.FENCED)
            raise

    def _until_deadline(self, call: Callable[[], None]) -> None:
        """Repeat a call that says Retriable until the commit's deadline."""
        deadline = self._clock.monotonic() + self._commit_seconds_max
        while True:
            try:
                call()
            except Retriable:
                if self._clock.monotonic() >= deadline:
                    raise
            else:
                return

    def _abort(self, reason: str) -> None:
        log.warning("aborting the transaction: %s", reason)
        if self._machine.state is TransactionState.IDLE:
            return
        try:
            self._until_deadline(lambda: self._producer.abort(CALL_SECONDS_MAX))
        except (Retriable, TransactionAborted, OutcomeUnknown) as error:
            log.warning("the abort was not confirmed, replacing the producer: %s", error)
            self._machine.apply(TransactionEvent.OUTCOME_LOST)
            self._recover({})
            return
        except Fenced:
            self._machine.apply(TransactionEvent.FENCED)
            raise
        self._machine.apply(TransactionEvent.ABORTED)

    def _recycle(self, reason: str) -> None:
        """A new client of the same id; initialising it ends whatever transaction the old one had."""
        self._on_recycle(reason)
        self._until_deadline(lambda: self._producer.recycle(self._commit_seconds_max))

    def _recover(self, targets: Targets) -> bool:
        """Resolve an unknown outcome: a new producer ends the old transaction, then the committed offsets tell.

        Returns whether exactly `targets` is committed. Raises Fenced when somebody else committed in between.
        """
        self._recycle("outcome_unknown")
        found: dict[int, tuple[int, str] | None] = {}

        def ask() -> None:
            found.update(self._consumer.committed_with_metadata(list(targets), CALL_SECONDS_MAX))

        self._until_deadline(ask)
        self._machine.apply(TransactionEvent.RECOVERED)
        if targets and all(found[index] == target for index, target in targets.items()):
            return True
        for index in targets:
            partition, answer = self._ownership.get(index), found[index]
            if partition is not None and answer is not None and answer[0] != partition.committed_next_offset:
                raise Fenced(
                    f"partition {index} was committed to offset {answer[0]} by another member",
                    "the worker restarts from the committed state",
                )
        return False
