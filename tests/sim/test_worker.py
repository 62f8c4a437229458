"""The worker itself in random worlds: its loop, commit and restore keep what its tables promise.

Each world is what `test_protocol` plays, with the worker's own code in place of the model of it; a process may be
killed at every call that leaves it. More worlds with LSTM_WORKER_SOAK=1, others with LSTM_WORKER_SEED.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.conftest import COUNTS
from tests.sim.adapters import StepwiseProducer
from tests.sim.checks import expected, violations
from tests.sim.real_worker import RealWorker
from tests.sim.test_protocol import AIMED, HIT_SHARE_MIN, Record
from tests.sim.world import PARTITIONS, World
from worker import transactional_commit
from worker.core.joint import refuse_to_send_offsets
from worker.core.slots import StreamTable
from worker.core.transaction import TransactionEvent
from worker.loop import Worker
from worker.partitions import CommitIdentity, OwnedPartition
from worker.transactional_commit import TransactionalDelivery

SOAK = bool(os.environ.get("LSTM_WORKER_SOAK"))
SEED = int(os.environ.get("LSTM_WORKER_SEED", "1"))
WORLDS = 100 if SOAK else 14
FIRST_SEEDS = range(SEED, SEED + (10 if SOAK else 1) * WORLDS, WORLDS)
MUTANT_WORLDS_MAX = 150
PACE = 2
"""Each call and each step of the worker's hook is a step of the world."""
STEPS = (
    *("polled", "stepped", "begun", "produced", "dead_letters_sent", "changelog_sent", "flushed"),
    *("offsets_sent", "committed", "stored", "done"),
)
"""What the worker's own hook reports."""


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """Aborts and rebalances are what these worlds are made of; their log lines would fill memory."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def played(seed: int) -> World:
    return World(seed, RealWorker, PACE).run()


def dead_letters_wrong(world: World) -> str:
    """Each record that cannot be used is one dead letter."""
    for index in range(PARTITIONS):
        log = world.kafka.logs["dead", index]
        found = [str(entry.key) for entry in log.read(0, log.high_watermark)]
        skipped = [record.key for record in world.input[index][world.kafka.input_low :] if record.kind == "skip"]
        if sorted(found) != sorted(skipped):
            return f"dead letters: partition {index} has {len(found)} of {len(skipped)}"
    return ""


def wrong(world: World) -> list[str]:
    return violations(world) or [*filter(None, [dead_letters_wrong(world)])]


@pytest.mark.parametrize("first_seed", FIRST_SEEDS)
def test_every_sample_counts_exactly_once_with_the_worker_itself(first_seed: int, record_property: Record) -> None:
    counts: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    outputs = 0
    for seed in range(first_seed, first_seed + WORLDS):
        world = played(seed)
        assert not (found := wrong(world)), f"seed {seed}: " + "; ".join(found)
        counts += world.counts
        faults += world.faults
        hits += world.hits
        outputs += sum(len(expected(world, index)[0]) for index in range(PARTITIONS))
    exits = ", ".join(
        f"{count} {name.removeprefix('exits: ')}" for name, count in sorted(counts.items()) if "exits" in name
    )
    record_property(
        COUNTS,
        f"the worker itself: {WORLDS} worlds from seed {first_seed}, {faults.total()} faults ({hits.total()} hit an "
        f"undecided transaction), {counts['step: done']} commits, {outputs} outputs checked, 0 lost, 0 doubled, "
        f"0 wrong; processes that ended by themselves: {exits}",
    )
    aimed, hit = sum(faults[fault] for fault in AIMED), sum(hits[fault] for fault in AIMED)
    assert hit >= HIT_SHARE_MIN * aimed, f"says nothing: only {hit} of {aimed} faults hit an undecided transaction"
    assert all(counts[f"step: {step}"] for step in STEPS), f"says nothing: {counts}"
    assert counts["recycled: outcome_unknown"], "says nothing: no outcome was ever unknown"
    assert counts["stores set aside"], "says nothing: no damaged store was ever met"


# ---- decisions taken wrongly, in the worker's own code


def revoked_without_commit(self: Worker, partitions: list[int]) -> None:
    self._finish_batch()
    self._roll_back([self._ownership[index] for index in partitions if self._ownership[index].running])
    self._let_go(partitions)


def anybodys_offsets(*arguments: object) -> str:
    del arguments
    return ""


def whoever_is_member(group: Any, processed: Any, now: Any) -> str:
    return refuse_to_send_offsets(
        group,
        {index: (number, "") for index, (number, _) in processed.items()},
        {index: (number, "") for index, (number, _) in now.items()},
    )


def not_sought_back(self: OwnedPartition) -> None:
    self.rewinding = True
    self.changelog_next_offset = self.committed_changelog_next_offset


def states_not_rolled_back(self: StreamTable, partitions: Any = None) -> Any:
    del partitions
    self.committed()
    return np.empty(0, np.int64)


def always_committed(self: TransactionalDelivery, targets: Any) -> bool:
    del targets
    self._recycle("outcome_unknown")
    self._machine.apply(TransactionEvent.RECOVERED)
    return True


def never_committed(self: TransactionalDelivery, targets: Any) -> bool:
    always_committed(self, targets)
    return False


def stored_before_the_commit(self: TransactionalDelivery) -> None:
    for partition in self._ownership.changed():
        assert partition.store is not None
        partition.store.write(self._table.changes().get(partition.index, ()), partition.position())
    decide(self)


def old_target(self: CommitIdentity, partition: OwnedPartition) -> str:
    newest, partition.changelog_next_offset = partition.changelog_next_offset, partition.committed_changelog_next_offset
    try:
        return metadata(self, partition)
    finally:
        partition.changelog_next_offset = newest


decide = TransactionalDelivery._decide
metadata = CommitIdentity.metadata
Patch = tuple[object, str, Callable[..., Any] | property]
ANYBODYS_OFFSETS: Patch = (transactional_commit, "refuse_to_send_offsets", anybodys_offsets)
MUTANTS: dict[str, tuple[Patch, ...]] = {
    "revoked without a commit, and anybody's offsets sent": (
        (Worker, "on_revoked", revoked_without_commit),
        ANYBODYS_OFFSETS,
    ),
    "a member that rejoined in the background is taken for the former one": (
        (transactional_commit, "refuse_to_send_offsets", whoever_is_member),
    ),
    "not sought back": ((OwnedPartition, "rollback", not_sought_back),),
    "states not rolled back": ((StreamTable, "rollback", states_not_rolled_back),),
    "unknown means committed": ((TransactionalDelivery, "_recover", always_committed),),
    "unknown means not committed": ((TransactionalDelivery, "_recover", never_committed),),
    "stored before the commit": ((TransactionalDelivery, "_decide", stored_before_the_commit),),
    "the commit names an old restore target": ((CommitIdentity, "metadata", old_target),),
    "a suspect producer is kept": ((StepwiseProducer, "suspect", property(lambda _: False)),),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_decision_of_the_worker_is_caught(
    mutant: str, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    for owner, name, replacement in MUTANTS[mutant]:
        monkeypatch.setattr(owner, name, replacement)
    for seed in range(SEED, SEED + MUTANT_WORLDS_MAX):
        found = wrong(played(seed))
        if found:
            record_property(COUNTS, f"{mutant}: caught in world {seed}, {found[0][:80]}")
            return
    pytest.fail(f"survived {MUTANT_WORLDS_MAX} worlds: {mutant}")
