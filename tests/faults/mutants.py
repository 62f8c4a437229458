"""Ways to get exactly-once wrong, patched into a worker's process by the tests (`worker_process.py --mutant NAME`).

`tests/sim` has these and more; here a real broker and the real stores decide what comes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from worker import restoring, transactional_commit
from worker.adapters import kafka_changelog, kafka_consumer
from worker.adapters.kafka_admin import KafkaAdmin
from worker.adapters.kafka_producer import KafkaProducer, TransactionalKafkaProducer
from worker.adapters.rocksdb_store import RocksDBStore
from worker.config import Settings
from worker.core.group_metadata import GroupMetadata
from worker.core.restore import Halt
from worker.core.slots import StreamTable
from worker.core.transaction import TransactionEvent
from worker.loop import Worker
from worker.partitions import OwnedPartition
from worker.ports import Hook, StorePosition
from worker.transactional_commit import TransactionalDelivery

HOOKS: list[Hook] = []
"""The failpoint hook of this life, for mutants that have steps of their own."""


@dataclass(frozen=True)
class Mutant:
    """`scenario` is a key of `test_mutants.SCENARIOS`; `install` patches the process."""

    scenario: str
    mistake: str
    install: Callable[[Settings], None]


def patch(owner: Any, name: str, replacement: Any) -> None:
    setattr(owner, name, replacement)


def never_refused(*arguments: object) -> str:
    del arguments
    return ""


def store_before_the_commit(_: Settings) -> None:
    decide = TransactionalDelivery._decide

    def stored_first(self: TransactionalDelivery) -> None:
        for partition in self._ownership.changed():
            assert partition.store is not None
            partition.store.write(self._table.changes().get(partition.index, ()), partition.position())
            # As a write buffer that is just full.
            partition.store.flush()
        self._hook("offsets_sent")
        decide(self)

    patch(TransactionalDelivery, "_decide", stored_first)


def position_written_apart(_: Settings) -> None:
    write = RocksDBStore.write

    def apart(self: RocksDBStore, rows: Iterable[tuple[bytes, bytes | None]], position: StorePosition) -> None:
        write(self, [], position)
        # As a write buffer that is just full.
        self.flush()
        for hook in HOOKS:
            hook("stored")
        write(self, rows, position)

    patch(RocksDBStore, "write", apart)


def offsets_outside_of_the_transaction(_: Settings) -> None:
    def send_nothing(self: TransactionalKafkaProducer, topic: str, offsets: Any, group: Any, timeout: float) -> None:
        del self, topic, offsets, group, timeout

    store = TransactionalDelivery._store

    def commit_then_store(self: TransactionalDelivery, partitions: Sequence[OwnedPartition], changes: Any) -> None:
        self._consumer.commit({each.index: (each.next_offset, self._identity.metadata(each)) for each in partitions})
        store(self, partitions, changes)

    patch(TransactionalKafkaProducer, "send_offsets", send_nothing)
    patch(TransactionalDelivery, "_store", commit_then_store)


def changelog_outside_of_the_transaction(settings: Settings) -> None:
    plain: list[KafkaProducer] = []

    def produced_apart(self: TransactionalDelivery, partitions: Sequence[OwnedPartition], changes: Any) -> Any:
        if not plain:
            plain.append(KafkaProducer({"bootstrap.servers": settings.kafka.bootstrap_servers}))
        for index in [partition.index for partition in partitions if changes.get(partition.index)]:
            keys, rows = [key for key, _ in changes[index]], [row for _, row in changes[index]]
            plain[0].produce_many(self._changelog, [index] * len(rows), keys, rows, [self._clock.now_ms()] * len(rows))
        plain[0].flush()
        return sent(self, partitions, changes)

    sent = TransactionalDelivery._send_changelog
    patch(TransactionalDelivery, "_send_changelog", produced_apart)


def states_not_rolled_back(_: Settings) -> None:
    def forget(self: StreamTable, partitions: Sequence[int] | None = None) -> Any:
        del partitions
        self.committed()
        return np.empty(0, np.int64)

    patch(StreamTable, "rollback", forget)


def not_sought_back(_: Settings) -> None:
    def rollback(self: OwnedPartition) -> None:
        self.rewinding = True
        self.changelog_next_offset = self.committed_changelog_next_offset

    patch(OwnedPartition, "rollback", rollback)


def _resolved_without_asking(committed: bool) -> Callable[[TransactionalDelivery, Any], bool]:
    def recover(self: TransactionalDelivery, targets: Mapping[int, Any]) -> bool:
        del targets
        self._recycle("outcome_unknown")
        self._machine.apply(TransactionEvent.RECOVERED)
        return committed

    return recover


def unknown_means_aborted(_: Settings) -> None:
    patch(TransactionalDelivery, "_recover", _resolved_without_asking(committed=False))


def unknown_means_committed(_: Settings) -> None:
    patch(TransactionalDelivery, "_recover", _resolved_without_asking(committed=True))


def revoked_without_a_commit(_: Settings) -> None:
    def revoked(self: Worker, partitions: Sequence[int]) -> None:
        self._roll_back([self._ownership[index] for index in partitions if self._ownership[index].running])
        self._let_go(partitions)

    patch(Worker, "on_revoked", revoked)
    patch(transactional_commit, "refuse_to_send_offsets", never_refused)


def blank_group_metadata(_: Settings) -> None:
    send = TransactionalKafkaProducer.send_offsets

    def anonymous(
        self: TransactionalKafkaProducer, topic: str, offsets: Any, group: GroupMetadata, timeout: float
    ) -> None:
        blank = b"CGMDv2:\xff\xff\xff\xff" + group.group.encode() + b"\0\0\x01"
        send(self, topic, offsets, replace(group, raw=blank), timeout)

    patch(TransactionalKafkaProducer, "send_offsets", anonymous)
    patch(transactional_commit, "refuse_to_send_offsets", never_refused)


def unstable_offsets_read(_: Settings) -> None:
    kafka_consumer.DEFAULTS["isolation.level"] = "read_uncommitted"


def restored_to_the_last_stable_offset(settings: Settings) -> None:
    planned = restoring.ChangelogOpener._planned

    def shortened(self: restoring.ChangelogOpener, index: int, *arguments: Any) -> Any:
        plan = planned(self, index, *arguments)
        assert not isinstance(plan, Halt)
        admin = KafkaAdmin({"bootstrap.servers": settings.kafka.bootstrap_servers})
        stable = admin.end_offsets(settings.changelog_topic, [index], read_committed=True)[index]
        return replace(plan, target=max(plan.start, min(plan.target, stable)))

    patch(restoring.ChangelogOpener, "_planned", shortened)


def restored_uncommitted(_: Settings) -> None:
    kafka_changelog.FORCED["isolation.level"] = "read_uncommitted"


MUTANTS: dict[str, Mutant] = {
    "store before the commit": Mutant(
        "killed before the commit", "writes the store while the transaction is undecided", store_before_the_commit
    ),
    "position written apart": Mutant(
        "killed while storing", "writes position and rows in two batches", position_written_apart
    ),
    "offsets outside of the transaction": Mutant(
        "killed after the commit", "commits input offsets as at-least-once does", offsets_outside_of_the_transaction
    ),
    "changelog outside of the transaction": Mutant(
        "killed and the disk lost", "rows are visible before the commit", changelog_outside_of_the_transaction
    ),
    "restored uncommitted": Mutant(
        "killed and the disk lost", "reads aborted rows of the changelog", restored_uncommitted
    ),
    "states not rolled back": Mutant("aborted", "steps the same samples twice", states_not_rolled_back),
    "not sought back": Mutant("aborted", "goes on behind the aborted records", not_sought_back),
    "unknown means aborted": Mutant(
        "commit not answered", "takes a commit timeout for an abort", unknown_means_aborted
    ),
    "unknown means committed": Mutant(
        "commit not sent", "takes a commit timeout for a commit", unknown_means_committed
    ),
    "revoked without a commit": Mutant(
        "rebalanced", "commits partitions of an assignment that is over", revoked_without_a_commit
    ),
    "blank group metadata": Mutant("frozen before the offsets", "cannot be fenced as a member", blank_group_metadata),
    "unstable offsets read": Mutant(
        "frozen before the commit", "does not wait for the former owner's transaction", unstable_offsets_read
    ),
    "restored to the last stable offset": Mutant(
        "rows behind an open transaction", "ignores the restore target", restored_to_the_last_stable_offset
    ),
}
