"""Models of several outputs: each ends as it does, and together they are one row of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.model.random_model import TIMESTEPS, RandomModel
from worker.errors import ConfigError, ModelNotStreamable
from worker.model.calibration_fit import check_calibratable
from worker.model.program import StepProgram
from worker.model.readout import Readout

WIDTH = 3


def program_of(*heads: tuple[str, int], flat: bool = False) -> StepProgram:
    model = RandomModel(0, features=WIDTH, fixed=True)
    value: Any = model.add("Flatten" if flat else "GlobalMaxPooling1D", [model.input], [])
    width = WIDTH * TIMESTEPS if flat else WIDTH
    outputs = []
    for activation, units in heads:
        weights = [model.array(width, units), model.array(units)]
        outputs.append(model.add("Dense", [value], weights, units=units, activation=activation))
    return model.program(outputs)


def logits(program: StepProgram) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 2, (5, program.outputs)).astype(np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def test_each_head_has_its_own_activation_on_its_own_numbers_in_the_order_of_the_outputs():
    program = program_of(("softmax", 3), ("sigmoid", 1), ("softmax", 2))
    given = logits(program)
    wanted = np.concatenate([softmax(given[:, :3]), sigmoid(given[:, 3:4]), softmax(given[:, 4:])], axis=1)

    assert program.heads == (("softmax", 3), ("sigmoid", 1), ("softmax", 2))
    np.testing.assert_allclose(program.outputs_of(given), wanted, atol=1e-6)


def test_sigmoids_are_one_head():
    program = program_of(("sigmoid", 1), ("sigmoid", 2))

    assert (program.activation, program.heads) == ("sigmoid", (("sigmoid", 3),))


def test_two_softmax_heads_are_not_one_set_of_classes():
    assert program_of(("softmax", 2), ("softmax", 2)).activation != "softmax"


def test_heads_of_probabilities_are_published_as_they_are():
    program = program_of(("softmax", 3), ("sigmoid", 1))
    given = logits(program)
    probabilities, exact = Readout(program).publish(given, np.arange(1, 6, dtype=np.int32))

    assert exact.all()
    np.testing.assert_array_equal(probabilities, program.outputs_of(given))


def test_a_head_without_probabilities_among_others_is_not_published_as_one():
    program = program_of(("sigmoid", 1), ("linear", 2))

    assert not program.is_probability
    np.testing.assert_array_equal(program.outputs_of(logits(program))[:, 1:], logits(program)[:, 1:])
    with pytest.raises(ModelNotStreamable, match=r"head \(sigmoid\+linear\) gives no probability"):
        Readout(program)


def test_heads_of_different_kinds_are_not_calibrated():
    program = program_of(("sigmoid", 1), ("softmax", 2), flat=True)

    with pytest.raises(ConfigError, match=r"sigmoid\+softmax with 3 output\(s\), which cannot be calibrated"):
        check_calibratable(program, "model.keras")
    assert check_calibratable(program_of(("sigmoid", 1), ("sigmoid", 2), flat=True), "model.keras") == TIMESTEPS
