"""Graphs, windows, masks and normalisations saved by Keras, and what it predicted for every prefix (make_graphs.py).

Of a model with one output per step it is every step of what Keras predicted for the whole sequence.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from worker.model.contract import largest_difference, verify
from worker.model.load import load_program
from worker.model.numpy_stepper import NumpyStepper
from worker.model.rules.table import RULES

FOLDER = Path(__file__).parents[2] / "goldens" / "graphs"
FILES = sorted([*FOLDER.glob("*.keras"), *FOLDER.glob("*.h5")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_prefix_says_what_keras_predicts_for_it(file):
    golden = np.load(file.with_suffix(".npz"))
    inputs, prefixes = golden["inputs"], golden["prefixes"]
    count, timesteps, _ = inputs.shape
    program = load_program(file, timesteps=timesteps)
    stepper = NumpyStepper(program)
    states = np.full((count, program.state_size), np.nan, np.float32)
    compared = 0
    for step in range(1, timesteps + 1):
        numbers = np.full(count, step, np.int32)
        outputs = program.outputs_of(stepper.step_batch(np.arange(count), inputs[:, step - 1], states, numbers))
        wanted = prefixes[:, step - 1]
        known = ~np.isnan(wanted).all(axis=0)
        if step >= program.exact_from and known.any():
            assert largest_difference(outputs[:, known], wanted[:, known]) <= 1e-6, step
            compared += 1
    assert compared == np.count_nonzero(~np.isnan(prefixes).all(axis=(0, 2)))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_passes_the_verification_at_load(file):
    verify(load_program(file, timesteps=12))


def test_a_file_says_the_same_in_both_formats():
    for file in FOLDER.glob("*.h5"):
        one, other = (load_program(each, timesteps=12) for each in (file, file.with_suffix(".keras")))
        assert one.fingerprint == other.fingerprint


def test_the_goldens_cover_every_layer_class_that_is_served():
    others = sorted(FOLDER.parent.glob("*.keras"))
    served = {row.class_name for file in [*FILES, *others] for row in load_program(file, timesteps=12).plan}

    assert set(RULES) - served == set(), "add these to make_graphs.py"
