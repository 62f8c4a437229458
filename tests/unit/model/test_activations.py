"""Activations by name and by layer, where the goldens of real Keras do not look: what is refused, and by what name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.goldens.make_functions import NAMES
from tests.unit.model.random_model import RandomModel
from worker.model.activations import FUNCTIONS
from worker.model.engines import operations_of


def of_layer(class_name: str, module: str = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"class_name": class_name, "module": module, "config": config, "registered_name": None}


EVERYTHING = {"class_name": "__slice__", "config": {"start": None, "stop": None, "step": None}}


def head(model: RandomModel, value: Any) -> Any:
    return model.add("Dense", [value], [model.array(2, 1), model.array(1)], units=1, activation="sigmoid")


def with_dense(model: RandomModel, activation: Any) -> Any:
    weights = [model.array(model.features, 2), model.array(2)]
    return model.add("Dense", [model.input], weights, units=2, activation=activation)


def logits(activation: Any, keras_major: int = 3) -> np.ndarray:
    """What the layer gives, a softmax too: a last layer's would be left to the head."""
    model = RandomModel(1, features=3)
    model.keras_major = keras_major
    samples = np.random.default_rng(2).normal(0, 1, (2, 5, 3))
    value = model.add("Rescaling", [with_dense(model, activation)], [])
    return model.program(value).whole(samples)


@pytest.mark.parametrize("keras_major", [2, 3])
@pytest.mark.parametrize(
    ("activation", "function"),
    [
        (of_layer("ELU", alpha=0.2, name="relu"), lambda x: np.where(x > 0, x, 0.2 * np.expm1(x))),
        (of_layer("ELU", name="tanh"), lambda x: np.where(x > 0, x, np.expm1(x))),
        (of_layer("LeakyReLU", negative_slope=0.01), lambda x: np.where(x > 0, x, 0.01 * x)),
        (of_layer("LeakyReLU", alpha=0.01), lambda x: np.where(x > 0, x, 0.01 * x)),
        (of_layer("LeakyReLU"), lambda x: np.where(x > 0, x, 0.3 * x)),
        (of_layer("ReLU", max_value=0.2, name="relu"), lambda x: np.clip(x, 0, 0.2)),
        (of_layer("Activation", activation=of_layer("Activation", activation="tanh")), np.tanh),
        (of_layer("function", module="builtins") | {"config": "tanh", "registered_name": "function"}, np.tanh),
    ],
)
def test_a_layer_as_an_activation_has_its_own_parameters_whatever_its_name(activation, function, keras_major):
    assert np.allclose(logits(activation, keras_major), function(logits("linear")), atol=1e-12)


def test_what_is_at_the_threshold_of_a_relu_is_below_it():
    model = RandomModel(1, features=1)
    program = model.program(model.add("ReLU", [model.input], [], threshold=1.0, negative_slope=0.5))

    given = np.array([[[1.0], [1.5], [0.0]]])
    assert program.whole(given)[0, :, 0].tolist() == [0, 1.5, -0.5]


@pytest.mark.parametrize("axis", [1, -2, 0, [1, 2], [], None])
def test_a_softmax_over_anything_else_than_the_features_is_refused(axis):
    model = RandomModel(1, features=3)
    refusal = model.refusal(with_dense(model, of_layer("Softmax", axis=axis)))

    assert "a softmax over all steps needs all of them" in refusal


@pytest.mark.parametrize("axis", [-1, 2, [2], [-1]])
def test_a_softmax_over_the_features_may_name_them_by_their_number(axis):
    shares = logits(of_layer("Activation", activation=of_layer("Softmax", axis=axis)))

    assert np.allclose(shares, logits("softmax"), atol=1e-12)


def test_a_distributed_softmax_over_the_features_is_no_attention_pooling():
    model = RandomModel(1, features=3)
    inner = {"class_name": "Softmax", "config": {"axis": 1}}
    weights = model.add("TimeDistributed", [model.input], [], layer=inner)
    program = model.program(model.add("Sum", [model.add("Multiply", [weights, model.input], [])], [], axis=1))

    given = np.random.default_rng(2).normal(0, 1, (2, 5, 3))
    powers = np.exp(given)
    assert np.allclose(program.whole(given), np.cumsum(powers / powers.sum(-1, keepdims=True) * given, axis=1))


@pytest.mark.parametrize(
    ("activation", "shown"),
    [
        (of_layer("PReLU", name="relu"), "layer PReLU"),
        (of_layer("relu", name="relu"), "layer relu"),
        (of_layer("ELU", module="of_a_user", alpha=1.0), "of_a_user.ELU"),
        (of_layer("Softmax", module="of_a_user"), "of_a_user.Softmax"),
        (of_layer("ELU") | {"registered_name": "package>ELU"}, "keras.layers.ELU"),
        (of_layer("function", module="of_a_user") | {"config": "relu"}, "of_a_user.relu"),
        (of_layer("function") | {"config": "package>relu"}, "package>relu"),
        ({"config": {"name": "relu"}}, "layer None"),
        (3, "3"),
    ],
)
def test_any_other_object_is_refused_by_its_class_and_not_taken_by_its_name(activation, shown):
    model = RandomModel(1, features=3)
    refusal = model.refusal(with_dense(model, activation))

    assert f"has activation {shown!r}, which is not known" in refusal


def test_the_kernel_does_not_take_a_layer_for_the_function_of_its_name():
    model = RandomModel(1, features=3)
    program = model.program(with_dense(model, of_layer("ReLU", max_value=0.2, name="relu")))

    assert operations_of(program)[0] is None


def test_the_fingerprint_depends_on_the_parameters_and_not_on_the_name_or_the_number_of_the_object():
    def fingerprint(**entry: Any) -> str:
        model = RandomModel(1, features=3)
        return model.program(with_dense(model, of_layer("ELU", alpha=0.2, name="one") | entry)).fingerprint

    config = {"alpha": 0.2, "name": "other"}
    assert fingerprint() == fingerprint(shared_object_id=7, config=config)
    assert fingerprint() != fingerprint(config=config | {"alpha": 0.3})


def test_the_goldens_have_every_activation_that_is_served():
    assert sorted(NAMES) == sorted([*FUNCTIONS, "hard_sigmoid"])


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_in_float32_an_activation_is_the_same_far_from_0_too(name):
    x = np.concatenate([np.linspace(-80, 80, 3202), np.linspace(-6, 6, 3602)]).reshape(-1, 2).astype(np.float32)
    wanted = FUNCTIONS[name](np, x.astype(np.float64))
    found = FUNCTIONS[name](np, x)

    assert found.dtype == np.float32
    # A quarter of what may be between a step and the whole.
    assert (np.abs(found - wanted) <= 2.5e-7 * np.maximum(1, np.abs(wanted))).all()


@pytest.mark.parametrize("name", ["glu", "sparsemax", "threshold", "eval"])
def test_what_is_no_function_of_each_number_is_refused_and_only_what_keras_runs_goes_to_buffer_mode(name):
    model = RandomModel(1, features=3, fixed=True)
    last = model.add("GetItem", [with_dense(model, name)], [], [EVERYTHING, -1])
    refusal = model.refusal(head(model, last))

    assert f"has activation {name!r}" in refusal
    assert ("--mode buffer" in refusal) == (name == "sparsemax")
