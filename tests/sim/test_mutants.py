"""The oracles are worth something: a worker that gets one decision wrong is caught within a bounded number of worlds.

The same worlds are played by the worker as it is and find nothing.
"""

from __future__ import annotations

import os

import pytest

from tests.conftest import COUNTS
from tests.sim.checks import violations
from tests.sim.mutants import MUTANTS, CarriedOverARebalance
from tests.sim.test_protocol import Record
from tests.sim.worker import SimulatedWorker
from tests.sim.world import World

SEED = int(os.environ.get("LSTM_WORKER_SEED", "1"))
WORLDS_MAX = 1500
"""The rarest mutant shows in one of several hundred worlds."""
WORLDS_OF_THE_TOKEN = 40


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_mutant_is_caught(mutant: type[SimulatedWorker], record_property: Record) -> None:
    for seed in range(SEED, SEED + WORLDS_MAX):
        wrong = violations(World(seed, mutant).run())
        if wrong:
            break
    else:
        pytest.fail(f"survived {WORLDS_MAX} worlds: {mutant.__doc__}")
    record_property(COUNTS, f"{mutant.__name__}: caught in world {seed}, {wrong[0][:80]}")
    assert not violations(World(seed).run()), f"seed {seed}: the worker as it is fails, too"


def test_a_batch_carried_over_a_rebalance_is_kept_out_by_the_ownership_token_alone() -> None:
    """The second line of defence: callbacks that do nothing cost work, never correctness."""
    refused = 0
    for seed in range(SEED, SEED + WORLDS_OF_THE_TOKEN):
        world = World(seed, CarriedOverARebalance).run()
        assert not violations(world), f"seed {seed}"
        refused += world.counts["refused here: changed hands"]
    assert refused, "says nothing: the token was never needed"
