"""Random worlds: whatever is killed, frozen, moved, lost, damaged or delayed, every sample counts exactly once.

The worker's own tables decide (`worker.core`); Kafka, clients and disks are simulated. `make soak` plays many more
worlds; LSTM_WORKER_SEED is the first one's seed. The counts are printed at the end of the run; a test fails as "says
nothing" when too few faults hit an undecided transaction, or when a cell of a table was never visited.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum

import pytest

from tests.conftest import COUNTS
from tests.sim.checks import expected, violations
from tests.sim.world import FAULTS, PARTITIONS, QUIET, World
from worker.core import joint, partition, transaction

SOAK = bool(os.environ.get("LSTM_WORKER_SOAK"))
SEED = int(os.environ.get("LSTM_WORKER_SEED", "1"))
WORLDS = 500 if SOAK else 200
FIRST_SEEDS = range(SEED, SEED + (20 if SOAK else 1) * WORLDS, WORLDS)
HIT_SHARE_MIN = 0.25
"""Of the faults that are aimed at one process: those that must hit an undecided transaction."""
AIMED = ("kill", "stop", "freeze", "second process", "long absence")


Record = Callable[[str, object], None]
"""pytest's `record_property`."""


def cells(name: str, table: Iterable[tuple[Enum, Enum]]) -> set[str]:
    return {f"{name}: {one.name} {other.name}" for one, other in table}


CELLS = (
    cells("partition", partition.TRANSITIONS)
    | cells("transaction", transaction.TRANSITIONS)
    | cells("joint", joint.JOINT_ACTIONS)
)
"""Every cell is reachable, so every one must be visited."""


def silence(counts: Counter[str], faults: Counter[str], hits: Counter[str]) -> list[str]:
    """Why the worlds say nothing."""
    found = [f"no fault '{fault}'" for fault in FAULTS if fault not in QUIET and not faults[fault]]
    aimed, hit = sum(faults[fault] for fault in AIMED), sum(hits[fault] for fault in AIMED)
    if hit < HIT_SHARE_MIN * aimed:
        found.append(f"only {hit} of {aimed} faults hit an undecided transaction")
    found += [f"never visited {cell}" for cell in sorted(CELLS) if not counts[cell]]
    rare = (
        "duplicates applied",
        "records compacted",
        "stores wiped",
        "recovered: committed",
        "rejoined with partitions",
    )
    return found + [f"never happened: {name}" for name in (*rare, "recovered: not committed") if not counts[name]]


@pytest.mark.parametrize("first_seed", FIRST_SEEDS)
def test_every_sample_counts_exactly_once_in_random_worlds(first_seed: int, record_property: Record) -> None:
    counts: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    outputs = 0
    for seed in range(first_seed, first_seed + WORLDS):
        world = World(seed).run()
        wrong = violations(world)
        assert not wrong, f"seed {seed} (LSTM_WORKER_SEED={seed} plays it first): " + "; ".join(wrong)
        counts += world.counts
        faults += world.faults
        hits += world.hits
        outputs += sum(len(expected(world, index)[0]) for index in range(PARTITIONS))
    visited = sum(1 for cell in CELLS if counts[cell])
    record_property(
        COUNTS,
        f"simulation: {WORLDS} worlds from seed {first_seed}, {faults.total()} faults ({hits.total()} hit an undecided "
        f"transaction), {counts['transaction: COMMITTING COMMIT_SUCCEEDED']} commits, {outputs} outputs checked, "
        f"0 lost, 0 doubled, 0 wrong; {visited} of {len(CELLS)} table cells visited",
    )
    aimed = ", ".join(f"{fault} {hits[fault]}/{faults[fault]}" for fault in FAULTS if fault not in QUIET)
    record_property(COUNTS, f"faults that hit an undecided transaction: {aimed}")
    assert not (reasons := silence(counts, faults, hits)), "says nothing: " + "; ".join(reasons)


def test_a_world_is_decided_by_its_seed() -> None:
    first, second = World(SEED).run(), World(SEED).run()
    assert first.counts == second.counts
    assert first.reader == second.reader
