"""Models that give one output per step: what is published after a sample is the model's output at its step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.model.architectures import layer
from tests.unit.model.random_model import RandomModel
from worker.errors import ConfigError, ModelNotStreamable
from worker.model.calibration_fit import check_calibratable
from worker.model.load import load_program
from worker.model.numpy_stepper import NumpyStepper
from worker.model.readout import Readout
from worker.model.training import by_step

GRAPHS = Path(__file__).parents[2] / "goldens" / "graphs"
WIDTH = 3


def sequence(model: RandomModel, **config):
    """Every output of a SimpleRNN."""
    weights = [model.array(WIDTH, 3), model.array(3, 3), model.array(3)]
    return model.add("SimpleRNN", [model.input], weights, units=3, return_sequences=True, **config)


def dense(model: RandomModel, value, activation="sigmoid", rows=3):
    weights = [model.array(rows, 1), model.array(1)]
    return model.add("Dense", [value], weights, units=1, activation=activation)


def model_of(fixed: bool = True) -> RandomModel:
    return RandomModel(0, features=WIDTH, fixed=fixed)


@pytest.mark.parametrize("name", ["one_per_step", "masked_per_step", "windows_per_step", "per_step_and_last"])
def test_a_step_is_published_as_exact_and_is_what_keras_predicts_there_for_the_whole_sequence(name):
    golden = np.load(GRAPHS / f"{name}.npz")
    inputs, wanted = golden["inputs"], golden["prefixes"]
    program = load_program(GRAPHS / f"{name}.keras")
    readout, stepper = Readout(program), NumpyStepper(program)
    states = np.zeros((len(inputs), program.state_size), np.float32)
    for step in range(1, inputs.shape[1] + 1):
        numbers = np.full(len(inputs), step, np.int32)
        logits = stepper.step_batch(np.arange(len(inputs)), inputs[:, step - 1], states, numbers)
        published, exact = readout.publish(logits, numbers)
        keras = wanted[:, step - 1]
        assert exact.all() == (not np.isnan(keras).all())
        assert (exact[0] and np.isfinite(published).all()) or np.isnan(published).all()
        known = ~np.isnan(keras)
        np.testing.assert_allclose(published[known], keras[known], atol=1e-6)


def test_it_is_exact_from_the_first_step_or_from_the_first_full_window_on():
    assert load_program(GRAPHS / "one_per_step.keras").exact_from == 1
    assert load_program(GRAPHS / "windows_per_step.keras").exact_from == 3


def test_what_comes_later_changes_no_earlier_output():
    program = load_program(GRAPHS / "masked_per_step.keras")
    samples = np.random.default_rng(3).standard_normal((2, 9, program.features))
    np.testing.assert_allclose(program.whole(samples)[:, :5], program.whole(samples[:, :5]), atol=1e-12)


@pytest.mark.parametrize("class_name", ["Dense", "Activation", "Softmax"])
def test_a_head_within_time_distributed_gives_probabilities(class_name):
    model = model_of()
    inner = layer(class_name, units=3, activation="softmax")
    weights = [model.array(3, 3), model.array(3)] if class_name == "Dense" else []
    program = model.program(model.add("TimeDistributed", [sequence(model)], weights, layer=inner))

    assert program.heads == (("softmax", 3),)
    assert program.is_probability


def test_there_is_nothing_to_calibrate():
    with pytest.raises(ConfigError, match="output of each step"):
        check_calibratable(load_program(GRAPHS / "one_per_step.keras"), "model.keras")


def test_with_strides_there_is_no_output_for_every_step():
    model = model_of()
    window = model.add("MaxPooling1D", [sequence(model)], [], pool_size=[2], strides=[2])

    assert "one output every 2 steps" in model.refusal(dense(model, window))


def test_an_output_per_step_beside_one_that_is_known_at_the_end_only_is_refused():
    model = model_of()
    value = sequence(model)
    flat = model.add("Flatten", [value], [])

    assert "known at the last step only" in model.refusal([dense(model, value), dense(model, flat, rows=33)])


def test_samples_given_back_are_no_output():
    model = model_of()

    assert "gives its samples back" in model.refusal([model.input, dense(model, sequence(model))])


def test_a_softmax_layer_behind_a_mask_is_refused_as_the_head_too():
    model = model_of()
    masked = model.add("Masking", [model.input], [], mask_value=0.0)

    assert "a softmax layer cannot be masked" in model.refusal(model.add("Softmax", [masked], []))


def test_predictions_of_keras_are_those_of_the_last_steps():
    of_the_sequence = np.ones((2, 1), np.float32)
    of_steps = np.arange(4, dtype=np.float32).reshape(1, 4, 1)

    assert np.isnan(by_step(of_the_sequence, 3)[:, :2]).all()
    assert (by_step(of_the_sequence, 3)[:, 2] == 1).all()
    np.testing.assert_array_equal(by_step(of_steps, 6)[0, :, 0], [np.nan, np.nan, 0, 1, 2, 3])


def ending(activation="sigmoid", every=False, heads=1):
    """A model that cannot be stepped, since it reads backwards, with this end."""
    model = model_of()
    weights = [model.array(WIDTH, 3), model.array(3, 3), model.array(3)]
    value = model.add("SimpleRNN", [model.input], weights, units=3, return_sequences=every, go_backwards=True)
    outputs = [dense(model, value, activation) for _ in range(heads)]
    return model, outputs if heads > 1 else outputs[0]


def test_buffer_mode_is_recommended_where_it_could_serve_the_model():
    model, output = ending()

    assert "--mode buffer" in model.refusal(output)


@pytest.mark.parametrize("end", [{"activation": "linear"}, {"every": True}, {"heads": 2}], ids=str)
def test_buffer_mode_is_not_recommended_where_it_would_refuse_the_end_of_the_model(end):
    model, output = ending(**end)
    text = model.refusal(output)

    assert "buffer" not in text
    assert "backwards" in text
    assert text.endswith("train it without this layer")


@pytest.mark.parametrize("name", ["new\nline", "esc\x1b[31m", "nul\0"])
def test_a_path_that_a_terminal_would_act_on_is_escaped_in_the_one_line(tmp_path, name):
    path = tmp_path / f"{name}.keras"
    for make in (lambda: None, lambda: path.write_text(json.dumps({}))):
        if "\0" not in name:
            make()
        with pytest.raises(ModelNotStreamable) as refused:
            load_program(path)
        assert str(refused.value).isprintable()
        assert repr(name)[1:-1] in str(refused.value)
