"""Small models saved by Keras, and what Keras itself predicted for them (tests/goldens/make_goldens.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from worker.model.contract import verify
from worker.model.load import load_program
from worker.model.numpy_stepper import NumpyStepper

FOLDER = Path(__file__).parents[2] / "goldens"
FILES = sorted([*FOLDER.glob("*.keras"), *FOLDER.glob("*.h5")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_last_step_says_what_keras_predicts(file):
    program = load_program(file)
    stepper = NumpyStepper(program)
    golden = np.load(file.with_suffix(".npz"))
    inputs = golden["inputs"]
    slots = np.arange(len(inputs))
    states = np.full((len(inputs), program.state_size), np.nan, np.float32)
    for t in range(inputs.shape[1]):
        steps = np.full(len(inputs), t + 1, np.int32)
        logits = stepper.step_batch(slots, inputs[:, t], states, steps)

    outputs = program.outputs_of(logits)

    # Outputs that are no probabilities are not within 0 and 1; their error is relative.
    scale = np.maximum(1, np.abs(golden["outputs"]))
    assert np.abs((outputs - golden["outputs"]) / scale).max() <= 1e-6


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_passes_the_verification_at_load(file):
    verify(load_program(file))


def test_a_file_says_the_same_in_both_formats():
    for file in FOLDER.glob("*.h5"):
        assert load_program(file).fingerprint == load_program(file.with_suffix(".keras")).fingerprint
