"""The commit as one function of numbered steps; a failpoint stands between each two.

At least once: outputs and dead letters are delivered before the states that produced them are stored, and the states
before the offsets are committed. A partition resumes at its store's own input offset, so a crash between any two steps
may publish outputs again but never steps a sample twice and never skips one.
"""

from __future__ import annotations

from collections.abc import Sequence

from worker.core.slots import StreamTable
from worker.core.types import DeadLetter, PredictionBatch
from worker.delivery import OutputTopics, send_dead_letters, send_predictions
from worker.errors import Retriable
from worker.partitions import CommitIdentity, OwnedPartition
from worker.ports import Consumer, Hook, Producer
from worker.progress_changelog import ProgressChangelog


class AtLeastOnceDelivery:
    """Outputs leave when they are sent; states and offsets follow at the commit."""

    def __init__(
        self,
        *,
        producer: Producer,
        consumer: Consumer,
        table: StreamTable,
        topics: OutputTopics,
        hook: Hook,
        changelog: ProgressChangelog | None = None,
        identity: CommitIdentity | None = None,
    ) -> None:
        """`changelog` None: the local store is the only state. `identity` signs the commits where there is one."""
        self._producer = producer
        self._consumer = consumer
        self._table = table
        self._topics = topics
        self._hook = hook
        self._changelog = changelog
        self._identity = identity

    def send(self, predictions: PredictionBatch, values: Sequence[bytes]) -> None:
        """Raises ProduceFailed when a record was refused."""
        send_predictions(self._producer, self._topics, predictions, values)

    def commit(self, partitions: Sequence[OwnedPartition], letters: Sequence[DeadLetter]) -> None:
        """Raises ProduceFailed, StoreFull, StoreCorrupted; everything not done yet is done again after a restart."""
        # 1. Dead letters leave with the batch they came from.
        send_dead_letters(self._producer, self._topics, letters)
        self._hook("dead_letters_sent")
        # 2. Everything published is on the broker before any state says so.
        self._producer.flush()
        self._hook("flushed")
        # 3. Rows, and the progress that they belong to, before the disk that could be lost says so.
        changes = self._table.changes()
        if self._changelog is not None:
            self._changelog.write(partitions, changes)
        # 4. States and input offset of a partition in one batch.
        for partition in partitions:
            assert partition.store is not None, "a running partition has a store"
            partition.store.write(changes.get(partition.index, ()), partition.position())
            self._hook("stored")
        self._table.committed()
        for partition in partitions:
            partition.committed()
        # 5. The group's offsets are for lag tools and for a lost disk; the store's own offset decides.
        try:
            self._consumer.commit({partition.index: self._offset(partition) for partition in partitions})
        except Retriable:
            # A rebalance is under way: the next commit, or the next owner, brings them up to date.
            return
        self._hook("offsets_committed")

    def _offset(self, partition: OwnedPartition) -> tuple[int, str]:
        return partition.next_offset, "" if self._identity is None else self._identity.metadata(partition)

    def abandon(self, partitions: Sequence[OwnedPartition]) -> bool:
        """Outputs already sent stay; their next owner sends them again."""
        del partitions
        return False

    def supersede(self, partition: OwnedPartition, keys: Sequence[bytes]) -> None:
        """Raises ProduceFailed."""
        assert self._changelog is not None, "only a changelog has rows to supersede"
        self._changelog.supersede(partition, keys)

    def close(self) -> None:
        """What was queued and not flushed is dropped: no committed state depends on it."""
        self._producer.close()
