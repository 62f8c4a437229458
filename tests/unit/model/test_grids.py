"""Steps that are grids: their shape from layer to layer, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.model.random_model import TIMESTEPS, RandomModel
from worker.model.buffered import load_buffered
from worker.model.contract import verify
from worker.model.inputs import ModelInput, inputs_of, split
from worker.model.program import StepProgram
from worker.model.training import predict

GRAPHS = Path(__file__).parents[2] / "goldens" / "graphs"
FILTERS = 2


@pytest.fixture
def model() -> RandomModel:
    return RandomModel(0, features=1, fixed=True)


def conv_lstm(model: RandomModel, value: Any, *size: int, channels: int = 1, every: bool = False, **config: Any) -> Any:
    kernels = model.array(*size, channels, 4 * FILTERS), model.array(*size, FILTERS, 4 * FILTERS)
    config = {"filters": FILTERS, "kernel_size": list(size), "return_sequences": every} | config
    return model.add(f"ConvLSTM{len(size)}D", [value], [*kernels, model.array(4 * FILTERS)], **config)


def finished(model: RandomModel, value: Any, width: int) -> StepProgram:
    return model.program(model.add("Dense", [value], [model.array(width, 1), model.array(1)], units=1))


def test_the_features_of_a_sample_are_the_numbers_of_a_step_in_c_order():
    inputs, steps = inputs_of("m", [("a", [None, 7, 3]), ("b", [None, None, 2, 4, 5]), ("c", [None, 7, 6, 1])], {})
    samples = np.arange(2 * 7 * 49).reshape(2, 7, 49).astype(np.float32)

    _, grids, rows = split(samples, inputs)

    assert inputs[1:] == (ModelInput("b", 3, 40, shape=(2, 4, 5)), ModelInput("c", 43, 6, shape=(6, 1)))
    assert steps == 7
    assert (grids.shape, rows.shape) == ((2, 7, 2, 4, 5), (2, 7, 6, 1))
    assert np.array_equal(grids[1, 3, 1, 2], samples[1, 3, 3 + 20 + 10 : 3 + 20 + 15])


@pytest.mark.parametrize(
    ("config", "rows", "columns"),
    [
        ({}, 5, 2),
        ({"padding": "same"}, 6, 4),
        ({"strides": [2, 3]}, 3, 1),
        ({"strides": 3, "padding": "same"}, 2, 2),
        ({"dilation_rate": [4, 1]}, 2, 2),
        ({"dilation_rate": [1, 4], "padding": "SAME", "data_format": None}, 6, 4),
    ],
)
def test_the_state_is_two_grids_of_the_answers_shape(model, config, rows, columns):
    value = conv_lstm(model, model.sequence_of(6, 4, 1), 2, 3, **config)

    program = finished(model, model.add("Flatten", [value], []), rows * columns * FILTERS)

    assert program.state_size == 2 * rows * columns * FILTERS
    verify(program)


def test_a_grid_that_is_flattened_after_the_last_step_is_there_at_every_step(model):
    value = conv_lstm(model, model.sequence_of(4, 1), 2)

    program = finished(model, model.add("Flatten", [value], []), 3 * FILTERS)

    assert (program.exactness, program.exact_from) == ("prefix", 1)
    assert [row.class_name for row in program.plan][-2:] == ["ConvLSTM1D", "Dense"]


def test_grids_that_are_flattened_over_time_are_there_at_the_end(model):
    value = conv_lstm(model, model.sequence_of(4, 1), 2, every=True)

    program = finished(model, model.add("Flatten", [value], []), TIMESTEPS * 3 * FILTERS)

    assert program.exactness == "end"
    verify(program)


def test_buffer_mode_and_keras_itself_take_a_sample_as_the_grid_that_it_is():
    golden, path = np.load(GRAPHS / "grids_flattened.npz"), GRAPHS / "grids_flattened.keras"
    samples, wanted = golden["inputs"], golden["prefixes"][:, -1]
    buffered = load_buffered(path)

    assert buffered.inputs[0].shape == (3, 2, 1)
    assert np.abs(predict(path, samples)[:, -1] - wanted).max() < 1e-6
    assert np.abs(buffered.outputs_of(buffered.whole(samples)[:, -1]) - wanted).max() < 1e-6


def test_what_lies_outside_of_the_grid_is_zero_whatever_the_grid_holds(model):
    """An infinite number beside the border must not become NaN by a product with zero."""
    value = conv_lstm(model, model.sequence_of(3, 1), 3, padding="same")
    program = finished(model, model.add("Flatten", [value], []), 3 * FILTERS)
    samples = np.zeros((1, 1, program.features), np.float32)
    (grid,) = [each for each in program.inputs if each.shape]
    samples[:, :, grid.first] = np.inf
    state, one = np.zeros((1, program.state_size), np.float32), np.ones(1, np.int32)

    with np.errstate(all="ignore"):
        assert np.isfinite(program.step(samples[:, 0], state, one)[0]).all()


@pytest.mark.parametrize("distributed", [True, False])
def test_the_last_axis_is_another_number_inside_of_time_distributed(model, distributed):
    def normalised(axis: int) -> Any:
        value = conv_lstm(model, model.sequence_of(*GRIDS), 2, 2, every=True)
        weights, config = [model.array(FILTERS), model.array(FILTERS)], {"axis": axis}
        if not distributed:
            return model.add("LayerNormalization", [value], weights, **config)
        inner = {"class_name": "LayerNormalization", "config": config}
        return model.add("TimeDistributed", [value], weights, layer=inner)

    last, other = (3, 4) if distributed else (4, 3)

    verify(finished(model, model.add("Flatten", [normalised(last)], []), TIMESTEPS * 3 * 2 * FILTERS))
    assert "its axis is not the last one" in model.refusal(normalised(other))


GRIDS = (4, 3, 1)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"go_backwards": True}, "backwards"),
        ({"return_state": True}, "returns its state"),
        ({"data_format": "channels_first"}, "channels first"),
        ({"padding": "causal"}, "padding is 'causal', neither valid nor same"),
        ({"padding": 3}, "padding is 3"),
        ({"filters": 0}, "filters is 0, not a whole number"),
        ({"filters": 3}, "its configuration implies weights of"),
        ({"kernel_size": [2]}, "kernel_size is a list, not 2 whole number(s) from 1 on"),
        ({"kernel_size": [2, True]}, "kernel_size is a list"),
        ({"strides": [0, 1]}, "strides is a list"),
        ({"strides": 2, "dilation_rate": 2}, "both strides and dilation"),
        ({"dilation_rate": [4, 1]}, "its window of 5 is larger than the step's 4"),
    ],
)
def test_a_convolution_that_cannot_be_stepped_is_refused_in_one_line(model, config, said):
    value = conv_lstm(model, model.sequence_of(*GRIDS), 2, 2, **config)

    assert said in model.refusal(model.add("Flatten", [value], []))


@pytest.mark.parametrize(
    ("class_name", "config", "said"),
    [
        ("LSTM", {"units": 2}, "the steps that reach it have the shape 3 x 2 x 2: put Flatten or TimeDistributed"),
        ("Masking", {}, "the steps that reach it have the shape 3 x 2 x 2"),
        ("Conv1D", {"filters": 2}, "the steps that reach it have the shape 3 x 2 x 2"),
        ("GlobalMaxPooling1D", {}, "the steps that reach it have the shape 3 x 2 x 2"),
        ("PReLU", {}, "the steps that reach it have the shape 3 x 2 x 2"),
        ("Mean", {"axis": 1}, "the steps that reach it have the shape 3 x 2 x 2"),
        ("Embedding", {"input_dim": 3, "output_dim": 2}, "not one id a step"),
        ("ConvLSTM1D", {"filters": 2, "kernel_size": 2}, "give it a sequence of (T, W, C)"),
        ("LayerNormalization", {"axis": 2}, "its axis is not the last one"),
        ("BatchNormalization", {"axis": 1}, "its axis is not the last one"),
        ("Softmax", {"axis": [-2]}, "its axis is not the last one"),
        ("GlobalAveragePooling2D", {}, "no step of 3 dimensions: set return_sequences=False"),
        ("GlobalAveragePooling1D", {}, "no step of 2 dimensions"),
        ("Reshape", {"target_shape": [3, 4]}, "another shape"),
        ("TimeDistributed", {"layer": {"class_name": "Conv2D", "config": {}}}, "not work on single steps"),
        (
            "Activation",
            {"activation": "softmax"},
            "end it with TimeDistributed(Flatten())",
        ),
    ],
)
def test_other_layers_on_a_sequence_of_grids_are_refused_by_name(model, class_name, config, said):
    value = conv_lstm(model, model.sequence_of(*GRIDS), 2, 2, every=True)

    assert said in model.refusal(model.add(class_name, [value], [], **config))


@pytest.mark.parametrize(
    ("class_name", "config", "said"),
    [
        ("Reshape", {"target_shape": [3, 4]}, "another shape"),
        ("GlobalAveragePooling1D", {}, "no step of 2 dimensions"),
        ("GlobalAveragePooling2D", {"keepdims": True}, "keeps the dimensions"),
        ("GlobalAveragePooling2D", {"data_format": "channels_first"}, "channels first"),
        ("Add", {}, "the steps that reach it have the shape 3 x 2 x 2"),
        ("ConvLSTM2D", {"filters": 2, "kernel_size": 2}, "no sequence reaches it"),
        ("LeakyReLU", {}, "gives more than one row of numbers: end it with Flatten and Dense"),
    ],
)
def test_other_layers_on_a_last_grid_are_refused_by_name(model, class_name, config, said):
    value = conv_lstm(model, model.sequence_of(*GRIDS), 2, 2)

    inputs = [value, value] if class_name == "Add" else [value]
    assert said in model.refusal(model.add(class_name, inputs, [], **config))


@pytest.mark.parametrize("class_name", ["ConvLSTM1D", "ConvLSTM2D", "GlobalAveragePooling2D"])
def test_a_sequence_of_features_is_no_sequence_of_grids(model, class_name):
    assert "what reaches it" in model.refusal(model.add(class_name, [model.input], [], filters=2))


def test_windows_without_end_are_refused_before_they_are_laid_out(model):
    value = conv_lstm(model, model.sequence_of(128, 100, 1), 40, 40, padding="same")

    assert "its windows are too many or too large" in model.refusal(model.add("Flatten", [value], []))
