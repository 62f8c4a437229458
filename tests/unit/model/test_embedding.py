"""Inputs of ids: which they are, what is no id, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker.errors import ModelNotStreamable
from worker.model.buffered import load_buffered
from worker.model.compile import compile_model
from worker.model.contract import drawn_samples, verify
from worker.model.engines import stepper_for
from worker.model.files.legacy import keras_3_vocabulary
from worker.model.files.reading import ModelFile
from worker.model.inputs import IDS_MAX, inputs_of, only_ids, split
from worker.model.load import load_program
from worker.model.program import StepProgram

GRAPHS = Path(__file__).parents[2] / "goldens" / "graphs"
NO_IDS = [-1.0, 6.0, 2.5, -0.5, 5.999, 2.0**31, 2.0**40, 3e38, np.inf, -np.inf, np.nan]
"""For a table of six rows."""


def sequential(shape: list[Any], table: tuple[int, ...] = (6, 2), **config: Any) -> StepProgram:
    layers = [
        {"class_name": "Embedding", "config": {"input_dim": 6, "output_dim": 2, "batch_input_shape": shape, **config}},
        {"class_name": "GlobalMaxPooling1D", "config": {"name": "largest"}},
    ]
    given = keras_3_vocabulary(Path("m.h5"), {"class_name": "Sequential", "config": layers}, 2)
    weights = {"Embedding": [np.arange(np.prod(table)).reshape(table).astype(np.float32)]}
    return compile_model(ModelFile(Path("m.h5"), given, 2, lambda _, class_name, __: weights.get(class_name, [])))


@pytest.mark.parametrize("engine", ["numpy", "tensorflow"])
@pytest.mark.parametrize("name", ["only_ids", "masked_ids"])
@pytest.mark.parametrize("other", NO_IDS)
def test_what_is_no_id_is_answered_with_nan_for_its_stream_alone(name, engine, other):
    program = load_program(GRAPHS / f"{name}.keras")
    stepper = stepper_for(program, engine)
    given = np.array([[1.0], [other], [5.0]], np.float32)
    one, all_three = np.ones(3, np.int32), np.arange(3)
    alone = stepper.step_batch(all_three[:1], given[:1], np.zeros((3, program.state_size), np.float32), one[:1])

    logits = stepper.step_batch(all_three, given, np.zeros((3, program.state_size), np.float32), one)

    assert np.isnan(logits[1]).all()
    assert np.isfinite(logits[[0, 2]]).all()
    assert logits[0] == pytest.approx(alone[0], abs=1e-6)
    assert np.isnan(program.whole(given[:, None])[:, 0, 0]).tolist() == [False, True, False]


def test_a_stream_does_not_recover_from_what_was_no_id():
    program = load_program(GRAPHS / "only_ids.keras")
    stepper, state = stepper_for(program, "numpy"), np.zeros((1, program.state_size), np.float32)
    for step, number in enumerate((1, 7, 1), 1):
        logits = stepper.step_batch(np.array([0]), np.array([[number]], "f4"), state, np.array([step], "i4"))

    assert np.isnan(logits).all()


def test_buffer_mode_answers_it_with_nan_too_instead_of_failing_in_keras():
    program = load_buffered(GRAPHS / "only_ids.keras", timesteps=4)
    samples = np.array([[1, 2, 3, 4], [1, 6, 3, 4], [1, np.nan, 3, 4], [1, 2.5, 3, 4]], np.float32)[..., None]

    found = np.isnan(program.whole(samples)[..., 0])

    assert found.tolist() == [[False] * 4] + [[False, True, True, True]] * 3


def test_the_samples_of_the_verification_are_ids():
    for name in ("only_ids", "masked_ids", "ids_and_features", "nested_ids"):
        program = load_program(GRAPHS / f"{name}.keras")
        samples = drawn_samples(program, 9, 12, np.random.default_rng(1))

        assert only_ids(samples, program.inputs).all()
        masked = sum((samples[:, :, each.columns] == 0).mean() for each in program.inputs if each.ids)
        assert masked > 0.1
        verify(program)


def test_only_an_input_that_embedding_layers_alone_take_has_ids():
    shapes = [("a", [None, 5]), ("b", [None, 5, 2]), ("c", [None, 4])]

    inputs, steps = inputs_of("m", shapes, {0: 7})

    assert [(each.width, each.is_static, each.ids) for each in inputs] == [(1, False, 7), (2, False, 0), (4, True, 0)]
    assert steps == 5
    assert [part.shape for part in split(np.zeros((3, 5, 7), np.float32), inputs)] == [(3, 5), (3, 5, 2), (3, 4)]


def test_older_files_give_the_length_of_the_sequence_in_the_layer():
    program = sequential([None, 5], input_length=5)

    assert (program.features, program.timesteps, program.inputs[0].ids) == (1, 5, 6)
    assert program.whole(np.array([[[2.0], [1.0]]]))[0].tolist() == [[4, 5], [4, 5]]
    assert sequential([None, None], input_length=None).timesteps is None


def test_nothing_is_kept_of_ids():
    assert sequential([None, None]).plan[0].state_floats == 0


@pytest.mark.parametrize(
    ("shape", "config", "said"),
    [
        ([None, 5, 2], {}, "what reaches it is not one id a step: give it an input of shape (T,)"),
        ([None, 5, 1], {}, "what reaches it is not one id a step"),
        ([None, 5], {"input_dim": IDS_MAX + 1}, "input_dim is 16777217 and output_dim 2, not whole numbers from 1 on"),
        ([None, 5], {"input_dim": 0}, "input_dim is 0"),
        ([None, 5], {"input_dim": "6"}, "input_dim is '6'"),
        ([None, 5], {"input_dim": None}, "input_dim is None"),
        ([None, 5], {"output_dim": True}, "output_dim True"),
        ([None, 5], {"output_dim": 3}, "implies a table of (6, 3), the file has [(6, 2)]"),
        ([None, 5], {"input_dim": 7}, "implies a table of (7, 2), the file has [(6, 2)]"),
        ([None, 5], {"mask_zero": "yes"}, "mask_zero is 'yes', not true or false"),
        ([None, "5"], {}, "m.h5 takes '5' timesteps of 1 features"),
        ([None], {}, "m.h5 takes input of 1 dimensions"),
    ],
)
def test_what_cannot_be_embedded_is_refused_in_one_line(shape, config, said):
    with pytest.raises(ModelNotStreamable) as refused:
        sequential(shape, **config)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
