"""The law over random graphs: stepping equals the whole, whatever else is in the batch and however it is cut."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest

from tests.unit.model.random_graphs import random_graph
from tests.unit.model.random_model import TIMESTEPS
from worker.model.contract import TOLERANCE, drawn_samples, largest_difference, verify
from worker.model.numpy_stepper import NumpyStepper
from worker.model.program import StepProgram
from worker.model.rules.table import RULES

SEED = int(os.environ.get("LSTM_WORKER_SEED", "1"))
GRAPHS = 600
PARTS = 6
RULE_TIMES_MIN = 20
SEQUENCES = 5
PARTS_OF_SEVERAL_LAYERS = (
    *("an operator with a constant", "a function", "some of the features"),
    *("a cell", "stacked cells", "zeros before a window", "a range of steps", "a step from the front"),
    *("a step from the end", "attention pooling", "attention pooling by Dot"),
    *("numbers for each step", "numbers for each step, flattened", "several heads"),
    *("two sequences", "a static input", "ids", "ids, 0 masked", "a mask", "masks merged", "a mask on a branch"),
    *("zeros for masked steps", "a grid flattened", "grids flattened step by step"),
    *("one output per step", "one output per step and one of the sequence"),
    *("joined with a flattened sequence", "joined with a sum over all steps", "each number of a flattened sequence"),
)
"""What the class of a single layer does not show."""


def samples(program: StepProgram, seed: int) -> np.ndarray:
    return drawn_samples(program, SEQUENCES, TIMESTEPS, np.random.default_rng(seed), masked=0.3)


def check_every_way_of_stepping(program: StepProgram, seed: int) -> None:
    """Prefixes, rows at different steps, rows of NaN, state through bytes, one stream alone and in company."""
    verify(program, seed=seed)
    given = samples(program, seed)
    with np.errstate(all="ignore"):
        wanted = program.outputs_of(program.whole(given).reshape(-1, program.outputs))
    wanted = wanted.reshape(SEQUENCES, TIMESTEPS, -1)
    together, alone = NumpyStepper(program), NumpyStepper(program)
    states = np.full((SEQUENCES, program.state_size), np.nan, np.float32)
    for step in range(1, TIMESTEPS + 1):
        # A worker may stop between any two steps: the state goes through bytes.
        states = np.frombuffer(states.tobytes(), np.float32).reshape(states.shape).copy()
        before = states.copy()
        steps = np.full(SEQUENCES, step, np.int32)
        logits = together.step_batch(np.arange(SEQUENCES), given[:, step - 1], states, steps)
        by_itself = alone.step_batch(np.array([2]), given[2:3, step - 1], before, steps[2:3])
        if step >= program.exact_from:
            outputs = program.outputs_of(logits)
            assert largest_difference(program.outputs_of(by_itself), outputs[2:3]) <= TOLERANCE, step
            assert largest_difference(outputs, wanted[:, step - 1]) <= TOLERANCE, step


@pytest.fixture(scope="module")
def served() -> Counter[str]:
    """In how many graphs each class of layer was, and each of PARTS_OF_SEVERAL_LAYERS."""
    return Counter()


@pytest.mark.parametrize("part", range(PARTS))
def test_stepping_random_graphs_equals_their_whole(part, served):
    for seed in range(SEED + part * GRAPHS // PARTS, SEED + (part + 1) * GRAPHS // PARTS):
        program, parts = random_graph(seed)
        try:
            check_every_way_of_stepping(program, seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {[row.class_name for row in program.plan]}: {error}") from error
        served.update({row.class_name for row in program.plan} | parts)


def test_every_rule_was_in_many_of_the_graphs(served, record_property):
    wanted = (*RULES, *PARTS_OF_SEVERAL_LAYERS)
    rare = {name: served[name] for name in wanted if served[name] < RULE_TIMES_MIN}
    assert served.total(), "run the whole file: the graphs count for this test"
    assert rare == {}
    record_property(
        "counts",
        f"{GRAPHS} random graphs, every one of {len(wanted)} rules in at least {min(served[n] for n in wanted)}",
    )
