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


@pytest.mark.parametrize("outputs", ["head", "dropout", "both"])
@pytest.mark.parametrize("taken", ["head", "dropout"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_a_head_that_other_layers_take_keeps_its_activation_for_them_and_its_logits_for_the_output(
    activation, taken, outputs
):
    model = RandomModel(1, features=WIDTH, fixed=True)
    last = model.add("GlobalMaxPooling1D", [model.input], [])
    first = model.array(WIDTH, 2), model.array(2)
    second = model.array(2, 1), model.array(1)
    values = {"head": model.add("Dense", [last], list(first), units=2, activation=activation)}
    values["dropout"] = model.add("Dropout", [values["head"]], [], rate=0.5)
    other = model.add("Dense", [values[taken]], list(second), units=1, activation="sigmoid")
    heads = [values[outputs]] if outputs != "both" else [values["head"], values["dropout"]]
    program = model.program([*heads, other])
    x = np.random.default_rng(1).normal(0, 1, (5, TIMESTEPS, WIDTH))

    largest = np.maximum.accumulate(x, axis=1)
    logits = largest @ first[0] + first[1]
    probabilities = sigmoid(logits) if activation == "sigmoid" else np.exp(logits) / np.exp(logits).sum(-1)[..., None]
    wanted = np.concatenate([*[logits] * len(heads), probabilities @ second[0] + second[1]], axis=-1)
    assert [name for name, _ in program.heads][:1] == [activation]
    assert program.is_probability
    np.testing.assert_allclose(program.whole(x), wanted, atol=1e-12)


def test_a_head_at_every_step_keeps_its_activation_for_a_recurrent_layer():
    model = RandomModel(1, features=WIDTH, fixed=True)
    inner = {"class_name": "Dense", "config": {"units": 2, "activation": "softmax"}}
    weights = model.array(WIDTH, 2), model.array(2)
    classes = model.add("TimeDistributed", [model.input], list(weights), layer=inner)
    kernels = [model.array(2, 1), np.zeros((1, 1), np.float32), model.array(1)]
    steps = model.add("SimpleRNN", [classes], kernels, units=1, activation="linear", return_sequences=True)
    program = model.program([classes, steps])
    x = np.random.default_rng(1).normal(0, 1, (5, TIMESTEPS, WIDTH))

    logits = x @ weights[0] + weights[1]
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(program.whole(x)[..., :2], logits, atol=1e-12)
    np.testing.assert_allclose(program.whole(x)[..., 2:], probabilities @ kernels[0] + kernels[2], atol=1e-12)


def test_an_output_that_is_listed_twice_is_a_head_twice():
    model = RandomModel(1, features=WIDTH, fixed=True)
    last = model.add("GlobalMaxPooling1D", [model.input], [])
    head = model.add("Dense", [last], [model.array(WIDTH, 2), model.array(2)], units=2, activation="softmax")
    program = model.program([head, head])

    assert program.heads == (("softmax", 2), ("softmax", 2))
    both = program.whole(np.ones((1, TIMESTEPS, WIDTH)))
    np.testing.assert_array_equal(both[..., :2], both[..., 2:])
