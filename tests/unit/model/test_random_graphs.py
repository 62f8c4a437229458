"""The law over random graphs: stepping equals the whole, whatever else is in the batch and however it is cut."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from tests.unit.model.random_graphs import random_graph
from tests.unit.model.random_model import TIMESTEPS, RandomModel
from tests.unit.model.verifier import TOLERANCE, Verifier
from worker.model.contract import drawn_samples, largest_difference
from worker.model.numpy_stepper import NumpyStepper
from worker.model.program import StepProgram
from worker.model.rules.table import RULES

SEED = int(os.environ.get("LSTM_WORKER_SEED", "1"))
GRAPHS = 600
RULE_TIMES_MIN = 20
SEQUENCES = 3
PARTS_OF_SEVERAL_LAYERS = (
    *("an operator with a constant", "a function", "some of the features"),
    *("a cell", "stacked cells", "zeros before a window", "a range of steps", "a step from the front"),
    *("a step from the end", "attention pooling", "attention pooling by Dot"),
    *("numbers for each step", "numbers for each step, flattened", "several heads"),
    *("a head that other layers take", "a head behind Dropout that others take"),
    *("a head at every step that other layers take", "a head whose activation is a layer", "an output twice"),
    *("two sequences", "a static input", "ids", "ids, 0 masked", "a mask", "masks merged", "a mask on a branch"),
    *("zeros for masked steps", "a grid flattened", "grids flattened step by step"),
    *("one output per step", "one output per step and one of the sequence"),
    *("joined with a flattened sequence", "joined with a sum over all steps", "each number of a flattened sequence"),
)
"""What the class of a single layer does not show."""


def check_each_output_by_itself(verifier: Verifier, alone: list[StepProgram]) -> None:
    """A model's output is the same number without the other outputs."""
    with np.errstate(all="ignore"):
        parts = [
            each.outputs_of(each.whole(verifier.samples)[:, verifier.begun :].reshape(-1, each.outputs))
            for each in alone
        ]
    wanted = np.concatenate(parts, axis=1)
    found = verifier.outputs(verifier.whole).reshape(wanted.shape)
    assert largest_difference(found, wanted) <= TOLERANCE


@pytest.fixture(scope="module")
def served() -> Counter[str]:
    """In how many graphs each class of layer was, and each of PARTS_OF_SEVERAL_LAYERS."""
    return Counter()


@seed(SEED)
@settings(max_examples=GRAPHS, database=None, deadline=None, phases=[Phase.generate, Phase.shrink])
@given(number=st.integers(0, 2**32 - 1), blocks=st.integers(1, 4))
def test_stepping_random_graphs_equals_their_whole(served, number, blocks):
    graph = random_graph(RandomModel(number), blocks)
    program = graph.program
    samples = drawn_samples(program, SEQUENCES, TIMESTEPS, np.random.default_rng(number), masked=0.3)

    verifier = Verifier(program, NumpyStepper(program), samples, splits=2, prefixes=3)
    verifier.verify()
    if graph.alone:
        check_each_output_by_itself(verifier, graph.alone)
    served.update({row.class_name for row in program.plan} | graph.parts)


def test_every_rule_was_in_many_of_the_graphs(served, record_property):
    wanted = (*RULES, *PARTS_OF_SEVERAL_LAYERS)
    rare = {name: served[name] for name in wanted if served[name] < RULE_TIMES_MIN}
    assert served.total(), "run the whole file: the graphs count for this test"
    assert rare == {}
    record_property(
        "counts",
        f"{GRAPHS} random graphs, every one of {len(wanted)} rules in at least {min(served[n] for n in wanted)}",
    )
