"""Operators and functions of Keras 3 where the goldens of real Keras do not look: orders, refusals, fingerprints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.model.random_model import TIMESTEPS, RandomModel

SAMPLES = np.random.default_rng(3).normal(0, 1, (2, TIMESTEPS, 3))


def program(class_name: str, *given: Any, **config: Any) -> Any:
    model = RandomModel(1, features=3, fixed=True)
    return model.program(model.operation(class_name, [model.input], *given, **config))


def refusal(class_name: str, *given: Any, **config: Any) -> str:
    model = RandomModel(1, features=3, fixed=True)
    return model.refusal(model.operation(class_name, [model.input], *given, **config))


@pytest.mark.parametrize("constant", [3.0, [0.5, -1.0, 2.0], [[[0.5, -1.0, 2.0]]], [0.0, 1.0, 2.0]])
@pytest.mark.parametrize(
    ("class_name", "function"),
    [
        ("Add", np.add),
        ("Subtract", np.subtract),
        ("Multiply", np.multiply),
        ("TrueDivide", np.divide),
        ("Divide", np.divide),
        ("Maximum", np.maximum),
        ("Minimum", np.minimum),
    ],
)
def test_a_constant_is_taken_on_the_side_where_it_stands(class_name, function, constant):
    with np.errstate(divide="ignore"):
        after, before = function(SAMPLES, constant), function(constant, SAMPLES)
        assert np.allclose(program(class_name, constant).whole(SAMPLES), after, rtol=1e-6)
        assert np.allclose(program(class_name, first=constant).whole(SAMPLES), before, rtol=1e-6)


def test_the_side_and_the_constant_are_in_the_fingerprint():
    found = [program("Subtract", 1), program("Subtract", first=1), program("Subtract", 2), program("Power", 2)]

    assert len({each.fingerprint for each in found}) == len(found)


@pytest.mark.parametrize(
    ("class_name", "given", "said"),
    [
        ("Add", [[1.0, 2.0]], "a constant of the shape (2,) for 3 features: use one number, or one for each feature"),
        ("Add", [np.zeros((TIMESTEPS, 3)).tolist()], f"the shape ({TIMESTEPS}, 3) for 3 features"),
        ("Add", [[[1.0], [2.0], [3.0]]], "the shape (3, 1) for 3 features"),
        ("Add", [[[[[1.0, 2.0, 3.0]]]]], "the shape (1, 1, 1, 3) for 3 features"),
        ("Add", [[[1.0], [2.0, 3.0]]], "it is called with a list"),
        ("Multiply", [float("nan")], "with nan, not with a number"),
        ("Multiply", [True], "with True, not with a number"),
        ("Multiply", ["x"], "it is called with 'x'"),
        ("Multiply", [1e39], "with 1e+39, not with a number"),
        ("Multiply", [2, 3], "it is called with a constant: put the constant into a layer, such as Rescaling"),
        ("FloorDivide", [2], "it is called with a constant"),
    ],
)
def test_other_constants_are_refused_with_their_shape(class_name, given, said):
    assert said in refusal(class_name, *given)


@pytest.mark.parametrize(
    ("class_name", "config", "said"),
    [
        ("Clip", {"x_min": None, "x_max": 1}, "a parameter is None"),
        ("Clip", {"x_min": [0, 1, 2], "x_max": 3}, "a parameter is a list"),
        ("Squareplus", {"b": 0}, "b is 0.0, not above 0"),
        ("Celu", {"alpha": 0}, "alpha is 0"),
        ("Gelu", {"approximate": "yes"}, "approximate is 'yes'"),
        ("LogSoftmax", {"axis": 1}, "a softmax over all steps needs all of them"),
        ("Cumsum", {}, "this class of layer is not known"),
    ],
)
def test_parameters_that_would_change_the_numbers_are_refused(class_name, config, said):
    assert said in refusal(class_name, **config)


def test_a_layer_that_is_called_as_a_function_is_not_taken_for_it():
    model = RandomModel(1, features=3)

    assert "this class of layer is not known" in model.refusal(model.add("Square", [model.input], []))
    assert "this class of layer is not known" in model.refusal(model.add("Tanh", [model.input], []))


@pytest.mark.parametrize(("class_name", "given", "config"), [("Add", [[1.0, 2.0, 3.0]], {}), ("LogSoftmax", [], {})])
def test_what_is_of_the_features_is_refused_once_they_are_flattened(class_name, given, config):
    model = RandomModel(1, features=3, fixed=True)
    flat = model.add("Flatten", [model.input], [])

    assert "cannot be stepped" in model.refusal(
        model.dense(model.operation(class_name, [flat], *given, **config), 3 * TIMESTEPS, 1, outside=True)
    )


def test_a_number_may_be_added_to_what_is_flattened():
    model = RandomModel(1, features=3, fixed=True)
    flat = model.operation("Subtract", [model.add("Flatten", [model.input], [])], first=1)
    weights = [model.array(3 * TIMESTEPS, 1), model.array(1)]
    value = model.add("Dense", [flat], weights, units=1, activation="linear")

    wanted = (1 - SAMPLES.reshape(2, -1)) @ weights[0] + weights[1]
    assert np.allclose(model.program(value).whole(SAMPLES)[:, -1], wanted)


@pytest.mark.parametrize("first", [0, 1])
def test_features_of_one_step_may_be_picked_too(first):
    model = RandomModel(1, features=3, fixed=True)
    everything, dots = {"class_name": "__slice__", "config": {}}, {"class_name": "__ellipsis__", "config": {}}
    last = model.operation("GetItem", [model.input], [dots, -1, everything])
    piece = {"class_name": "__slice__", "config": {"start": first, "stop": None, "step": 2}}
    value = model.operation("GetItem", [last], [everything, piece])

    assert np.array_equal(model.program(value).whole(SAMPLES), SAMPLES[..., first::2])


def test_a_function_of_a_masked_value_drops_the_mask():
    model = RandomModel(1, features=3, fixed=True)
    masked = model.add("Masking", [model.input], [], mask_value=0.0)
    relu = model.operation("ReLU", [masked], max_value=None, negative_slope=0.1, threshold=0.0)
    model._layers[-1]["module"] = "keras.src.activations.activations"
    average = model.program(model.add("GlobalAveragePooling1D", [relu], []))
    samples = SAMPLES.copy()
    samples[:, 1] = 0

    wanted = np.where(samples > 0, samples, 0.1 * samples).mean(axis=1)
    assert np.allclose(average.whole(samples)[:, -1], wanted)


def refusal_of_a_classifier(middle: Any, is_zip: bool = True) -> str:
    model = RandomModel(1, features=3, fixed=True)
    model.is_zip = is_zip
    last = model.recurrence(3, 2)
    value = model.add(last[0], [middle(model)], last[1], **last[2], return_sequences=False)
    weights = [model.array(2, 1), model.array(1)]
    return model.refusal(model.add("Dense", [value], weights, units=1, activation="sigmoid"))


@pytest.mark.parametrize("is_zip", [True, False])
def test_buffer_mode_is_named_only_where_keras_loads_the_operators(is_zip):
    found = refusal_of_a_classifier(lambda model: model.operation("Cumsum", [model.input]), is_zip)

    assert ("--mode buffer" in found) == is_zip


@pytest.mark.parametrize(("class_name", "is_named"), [("Conv1D", True), ("EinsumDense", True), ("Mine", False)])
def test_buffer_mode_is_named_for_layers_of_keras_that_are_distributed(class_name, is_named):
    inner = {"class_name": class_name, "config": {}}
    found = refusal_of_a_classifier(lambda model: model.add("TimeDistributed", [model.input], [], layer=inner))

    assert "what it distributes does not work on single steps" in found
    assert ("--mode buffer" in found) == is_named


@pytest.mark.parametrize("class_name", ["GroupQueryAttention", "GroupedQueryAttention"])
def test_attention_of_groups_is_refused_for_what_it_is_in_both_kinds_of_files(class_name):
    def attended(model: RandomModel) -> Any:
        value = model.add(class_name, [model.input, model.input], [])
        model.call_with({"use_causal_mask": True})
        return value

    assert "groups of queries are not supported" in refusal_of_a_classifier(attended)
