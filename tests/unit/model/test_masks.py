"""Which steps are left out, against the same model without masks on only the steps that count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.goldens.table import all_outputs
from tests.unit.model.random_model import RandomModel
from worker.errors import ModelNotStreamable
from worker.model.compile import compile_model
from worker.model.engines import operations_of, stepper_for
from worker.model.files.reading import open_model_file
from worker.model.numpy_stepper import NumpyStepper
from worker.model.program import StepProgram

GENERATIONS = Path(__file__).parents[2] / "goldens" / "generations"
ROWS = {"zeros": (0.0, 0.0), "ones": (1.0, 1.0), "both": (0.5, -0.5)}
"""What `Masking(0.0)` leaves out, what `Masking(1.0)` does, and what neither does."""


def samples() -> np.ndarray:
    """One sequence in which each kind of row follows each other one."""
    order = ("both", "zeros", "ones", "both", "both", "ones", "zeros", "zeros", "both")
    return np.array([[ROWS[kind] for kind in order]], np.float32)


def graph(keras_major: int, merge: str | None, masked: tuple[float | None, ...], passing=()) -> StepProgram:
    """Branches with a mask each (None: without), merged, layers of `passing`, and a recurrent layer: its program."""
    model = RandomModel(3, features=2, fixed=False)
    model.keras_major = keras_major
    branches = []
    for value in masked:
        branch = model.input if value is None else model.add("Masking", [model.input], [], mask_value=value)
        branches.append(model.add("Dense", [branch], [np.eye(2, dtype=np.float32), np.zeros(2, np.float32)], units=2))
    merged = model.add(merge, branches, []) if merge else branches[0]
    for class_name, config, weights in passing:
        merged = model.add(class_name, [merged], weights, **config)
    width = 2 * len(masked) if merge == "Concatenate" else 2
    random = np.random.default_rng(5)
    weights = [random.normal(0, 0.5, shape).astype(np.float32) for shape in ((width, 3), (3, 3), (3,))]
    last = model.add("SimpleRNN", [merged], weights, units=3)
    head = model.add("Dense", [last], [np.ones((3, 1), np.float32), np.zeros(1, np.float32)], units=1)
    return model.program(head)


def stepped(program, given: np.ndarray) -> np.ndarray:
    """Logits (T, K) of one sequence."""
    state = np.zeros((1, program.state_size), np.float32)
    stepper, one = NumpyStepper(program), np.zeros(1, np.int64)
    every = [
        stepper.step_batch(one, given[:, t], state, np.array([t + 1], np.int32))[0].copy()
        for t in range(given.shape[1])
    ]
    return np.array(every)


def on_steps_that_count(merge: str | None, masked: tuple[float | None, ...], counts: np.ndarray) -> np.ndarray:
    """Logits of every prefix: the branches by hand, then a plain recurrence over the steps that count."""
    given = samples()[0]
    parts = [
        given if value is None else np.where((given != value).any(axis=1, keepdims=True), given, 0) for value in masked
    ]
    merged = {"Add": sum(parts), "Concatenate": np.concatenate(parts, axis=1), None: parts[0]}[merge]
    random = np.random.default_rng(5)
    kernel, recurrent, bias = (random.normal(0, 0.5, shape) for shape in ((merged.shape[1], 3), (3, 3), (3,)))
    h, found = np.zeros(3), []
    for row, counted in zip(merged, counts, strict=True):
        h = np.tanh(row @ kernel + h @ recurrent + bias) if counted else h
        found.append([h.sum()])
    return np.array(found)


def counted(value: float | None) -> np.ndarray:
    given = samples()[0]
    return np.ones(len(given), bool) if value is None else (given != value).any(axis=1)


@pytest.mark.parametrize("merge", ["Add", "Concatenate"])
@pytest.mark.parametrize("masked", [(0.0, 1.0), (0.0, None), (None, 1.0), (0.0, 0.0), (1.0, None, 0.0)])
@pytest.mark.parametrize("keras_major", [2, 3])
def test_keras_2_takes_steps_that_count_in_all_masked_parts_and_keras_3_those_that_count_in_any(
    keras_major, masked, merge
):
    given = [counted(value) for value in masked if value is not None or keras_major == 3]
    counts = np.all(given, axis=0) if keras_major == 2 else np.any(given, axis=0)

    program = graph(keras_major, merge, masked)

    wanted = on_steps_that_count(merge, masked, counts)
    assert np.abs(stepped(program, samples()) - wanted).max() < 1e-6
    assert np.abs(program.whole(samples())[0] - wanted).max() < 1e-6


def test_the_two_rules_differ_on_these_samples():
    old, new = (stepped(graph(major, "Add", (0.0, 1.0)), samples()) for major in (2, 3))
    assert np.abs(old - new).max() > 0.1


@pytest.mark.parametrize(
    ("class_name", "config"), [("Rescaling", {"scale": 1.0}), ("Identity", {}), ("Normalization", {})]
)
def test_layers_that_keras_2_does_not_let_a_mask_through_are_none_for_keras_3(class_name, config):
    weights = [np.zeros(2, np.float32), np.ones(2, np.float32)] if class_name == "Normalization" else []
    passing = [(class_name, config, weights)]

    new, old = (stepped(graph(major, None, (0.0,), passing), samples()) for major in (3, 2))

    assert np.abs(new - on_steps_that_count(None, (0.0,), counted(0.0))).max() < 1e-6
    assert np.abs(old - on_steps_that_count(None, (0.0,), counted(None))).max() < 1e-6


def test_a_mask_value_is_compared_in_float32():
    given = samples()
    given[0, 1:3] = np.float32(0.1)

    masked = graph(3, None, (0.1,))

    assert np.array_equal(stepped(masked, given)[0], stepped(masked, given)[2])
    assert np.array_equal(masked.whole(given)[0, 0], masked.whole(given)[0, 2])


def test_a_softmax_layer_takes_the_mask_for_one_of_features_and_is_refused():
    with pytest.raises(ModelNotStreamable, match=r"'layer_3' \(Softmax\) cannot be stepped: .* cannot be masked"):
        graph(3, None, (0.0,), [("Softmax", {}, [])])


def with_mask(model: RandomModel, keywords: dict) -> ModelNotStreamable:
    masked = model.add("Masking", [model.input], [], mask_value=0.0)
    last = model.recurrent(masked, 2, 3, every=False)
    model._layers[-1]["inbound_nodes"][0]["kwargs"] = keywords
    with pytest.raises(ModelNotStreamable) as refused:
        model.program(model.add("Dense", [last], [model.array(3, 1), model.array(1)], units=1))
    return refused.value


@pytest.mark.parametrize("sought", [(1.0, "input"), (0.0, "layer_2")])
def test_a_mask_that_is_not_that_of_the_masking_layer_before_is_refused(sought):
    value, of = sought
    model = RandomModel(1, features=2)
    other = model.add("NotEqual", [model.input if of == "input" else model.dense(model.input, 2, 2)], [], value)
    tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": [*other, 0]}}

    refusal = with_mask(model, {"mask": tensor})

    assert "it is called with a mask of its own" in str(refusal)
    assert "Masking" in refusal.hint


def test_a_masked_model_is_stepped_by_numpy_where_the_kernel_would_be():
    program = graph(3, None, (0.0,))

    assert operations_of(program)[0] is None
    assert isinstance(stepper_for(program), NumpyStepper)


@pytest.mark.parametrize(("keras_major", "is_right"), [(2, True), (3, False)])
def test_a_file_of_tf_keras_2_is_masked_as_it_predicted_and_not_by_the_rules_of_keras_3(keras_major, is_right):
    golden = np.load(GENERATIONS / "tf_keras221_masked.npz")
    with open_model_file(GENERATIONS / "tf_keras221_masked.h5") as file:
        assert file.keras_major == 2
        program = compile_model(replace(file, keras_major=keras_major))

    differences = np.abs(all_outputs(program, golden["inputs"])[:, -1] - golden["outputs"]).max(axis=1)

    assert (differences <= 1e-6).all() if is_right else (differences > 0.01).all()
