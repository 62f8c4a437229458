"""Buffer mode: what cannot be stepped is run on the kept samples, and says nothing before it can."""

from __future__ import annotations

import json
import os

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.core.types import Float32Array
from worker.errors import ConfigError, ModelNotStreamable
from worker.model.buffered import buffered_program, load_buffered
from worker.model.contract import verify
from worker.model.engines import stepper_for
from worker.model.inputs import ModelInput
from worker.model.load import load_program
from worker.model.numpy_stepper import NumpyStepper
from worker.model.readout import Readout
from worker.model.tensorflow_import import importing_tensorflow

T, F = 5, 2


def backwards(samples: Float32Array) -> Float32Array:
    """Depends on the order, the last sample weighing most: nothing that a step could carry on."""
    weights = np.arange(1, samples.shape[1] + 1, dtype=np.float32) / samples.shape[1]
    return np.stack([samples[:, :, 0] @ weights, (samples[:, ::-1, 1] * weights).sum(axis=1)], axis=1)


def program(every_prefix: bool):
    return buffered_program(
        name="backwards",
        inputs=(ModelInput("input", 0, F),),
        timesteps=T,
        every_prefix=every_prefix,
        outputs=2,
        activation="sigmoid",
        fingerprint="ab" * 32,
        evaluate=backwards,
    )


@pytest.mark.parametrize("every_prefix", [True, False])
def test_it_keeps_the_contract_of_every_program(every_prefix):
    assert verify(program(every_prefix)).largest_difference < 1e-6


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_streams_at_different_steps_do_not_see_each_other(seed, every_prefix):
    generator = np.random.default_rng(seed)
    samples = generator.standard_normal((6, T, F)).astype(np.float32)
    order = generator.permutation(np.repeat(np.arange(6), T))
    seen = np.zeros(6, np.int64)
    steps = np.empty(len(order), np.int32)
    for i, stream in enumerate(order):
        seen[stream] += 1
        steps[i] = seen[stream]
    states = np.full((6, T * F), np.nan, np.float32)
    logits = NumpyStepper(program(every_prefix)).step_batch(order, samples[order, steps - 1], states, steps)
    for stream, step, logit in zip(order, steps, logits, strict=True):
        if every_prefix or step == T:
            assert np.allclose(logit, backwards(samples[[stream], :step])[0], atol=1e-6)


def test_nothing_is_called_a_probability_or_a_logit_before_the_last_step():
    readout = Readout(program(every_prefix=False))
    assert readout.computed_from == T
    probabilities, exact = readout.publish(np.zeros((T, 2), np.float32), np.arange(1, T + 1, dtype=np.int32))
    assert np.isnan(probabilities[:-1]).all()
    assert exact.tolist() == [False] * (T - 1) + [True]


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    return keras


def models(keras):
    layers = keras.layers
    keras.utils.set_random_seed(3)
    sequence = keras.Input((T, F))
    attended = layers.MultiHeadAttention(2, 4)(sequence, sequence)
    yield keras.Model(sequence, layers.Dense(1, activation="sigmoid")(layers.Flatten()(attended)))
    yield keras.Sequential(
        [
            keras.Input((T, F)),
            layers.Conv1D(4, 3, padding="same"),
            layers.Bidirectional(layers.GRU(3)),
            layers.Dense(3, activation="softmax"),
        ]
    )
    yield keras.Sequential(
        [keras.Input((None, F)), layers.LSTM(3, go_backwards=True), layers.Dense(1), layers.Activation("sigmoid")]
    )
    for over_time in (
        layers.LayerNormalization(axis=1),
        layers.EinsumDense("btf,fg->btg", output_shape=(None, 3)),
        layers.Activation("sparsemax"),
        layers.Dense(3, activation=layers.PReLU()),
        lambda x: keras.ops.cumsum(x, axis=1),
        lambda x: layers.GroupQueryAttention(2, 4, 2)(x, x, use_causal_mask=True),
    ):
        sequence = keras.Input((T, F))
        yield keras.Model(sequence, layers.Dense(1, activation="sigmoid")(layers.GRU(2)(over_time(sequence))))


def test_models_that_cannot_be_stepped_give_what_keras_predicts(keras, tmp_path):
    for number, model in enumerate(models(keras)):
        path = tmp_path / f"{number}.keras"
        model.save(path)
        with pytest.raises(ModelNotStreamable, match=r"--mode buffer|model.mode = 'buffer'"):
            load_program(path, timesteps=T)
        loaded = load_buffered(path, timesteps=T)
        samples = np.random.default_rng(number).standard_normal((9, T, F)).astype(np.float32)
        state = np.zeros((9, loaded.state_size), np.float32)
        for step in range(1, T + 1):
            logits = loaded.advance(samples[:, step - 1], state, np.full(9, step, np.int32))
            if step >= loaded.computed_from:
                predicted = model.predict(samples[:, :step], verbose=0)
                assert np.abs(loaded.outputs_of(logits) - predicted).max() < 1e-6
        assert load_buffered(path, timesteps=T).fingerprint == loaded.fingerprint


def test_a_model_that_keras_runs_on_some_numbers_of_samples_only_is_refused_in_one_line(keras, tmp_path):
    layers = keras.layers
    for first, said in (
        (layers.TimeDistributed(layers.Dense(3)), "slice index"),
        (layers.Conv1D(3, 4), "size would be negative"),
    ):
        backwards = layers.GRU(2, go_backwards=True)
        keras.Sequential([keras.Input((None, F)), first, backwards, layers.Dense(1, activation="sigmoid")]).save(
            tmp_path / "some.keras"
        )
        with pytest.raises(
            ModelNotStreamable, match=rf"does not run .*some.keras on \d sample\(s\): .*{said}.*: build"
        ):
            verify(load_buffered(tmp_path / "some.keras", timesteps=T))


def test_a_model_of_a_fixed_length_that_keras_does_not_run_is_refused_in_one_line(keras, tmp_path):
    layers, path = keras.layers, tmp_path / "halved.keras"
    halved = [layers.Dense(4), layers.Activation("glu"), layers.GRU(2), layers.Dense(1, activation="sigmoid")]
    keras.Sequential([keras.Input((T, F)), *halved]).save(path)

    with pytest.raises(ModelNotStreamable, match=r"does not run .*halved.keras on 5 sample\(s\)"):
        verify(load_buffered(path))


def test_a_head_may_have_its_activation_as_a_layer(keras, tmp_path):
    layers, path = keras.layers, tmp_path / "layer.keras"
    head = layers.Dense(2, activation=layers.Softmax())
    model = keras.Sequential([keras.Input((T, F)), layers.GRU(2, go_backwards=True), head])
    model.save(path)
    loaded = load_buffered(path)
    samples = np.random.default_rng(1).standard_normal((3, T, F)).astype(np.float32)

    assert loaded.heads == (("softmax", 2),)
    assert np.abs(loaded.outputs_of(loaded.whole(samples)[:, -1]) - model.predict(samples, verbose=0)).max() < 1e-6


def test_a_head_that_gives_no_probability_and_code_in_a_file_are_refused(keras, tmp_path):
    layers = keras.layers
    keras.Sequential([keras.Input((T, F)), layers.Bidirectional(layers.LSTM(2)), layers.Dense(1)]).save(
        tmp_path / "linear.keras"
    )
    with pytest.raises(ModelNotStreamable, match=r"ends in Dense.*'linear'"):
        load_buffered(tmp_path / "linear.keras")
    keras.Sequential([keras.Input((T, F)), layers.Lambda(lambda x: x), layers.Dense(1, activation="sigmoid")]).save(
        tmp_path / "code.keras"
    )
    with pytest.raises(ModelNotStreamable, match=r"Keras [\d.]+ does not load"):
        load_buffered(tmp_path / "code.keras")


def test_ends_that_buffer_mode_does_not_serve_are_named(keras, tmp_path):
    layers = keras.layers
    backward = layers.Bidirectional(layers.GRU(2, return_sequences=True))
    given = keras.Input((T, F))
    last = layers.GRU(2, go_backwards=True)(given)
    twice = layers.Dense(2, activation="sigmoid")
    ends = {
        "one output per step": layers.Dense(1, activation="sigmoid")(backward(given)),
        "has 2 outputs": [layers.Dense(1, activation="sigmoid")(last) for _ in range(2)],
        "ends in GRU": layers.GRU(2, activation="sigmoid", go_backwards=True)(given),
        "more than once": twice(twice(last)),
    }
    for said, outputs in ends.items():
        keras.Model(given, outputs).save(tmp_path / "model.keras")
        with pytest.raises(ModelNotStreamable, match=said):
            load_buffered(tmp_path / "model.keras")


def test_an_old_file_without_steps_is_refused_for_its_dimensions_not_for_its_length(tmp_path):
    dense = {"name": "d", "units": 1, "activation": "sigmoid", "batch_input_shape": [None, 4]}
    configuration = {"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": dense}]}}
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(configuration)
        file.attrs["keras_version"] = "2.2.4"
        file.create_group("model_weights").attrs["layer_names"] = [b"d"]

    with pytest.raises(ModelNotStreamable, match="takes input of 2 dimensions"):
        load_buffered(tmp_path / "old.h5")


def test_notes_of_tensorflow_are_left_out_and_all_else_is_written(capfd):
    with importing_tensorflow():
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n")
        os.write(2, b"I0000 00:00:1795580832.142613    7691 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"a line of somebody else\n")

    assert capfd.readouterr().err == "a line of somebody else\n"


def test_weights_alone_are_no_model(tmp_path):
    with pytest.raises(ModelNotStreamable, match="a whole model"):
        load_program(tmp_path / "some.weights.h5", architecture=tmp_path / "some.json", mode="buffer")


def test_tensorflow_as_the_engine_is_refused():
    with pytest.raises(ConfigError, match="runs the model by Keras"):
        stepper_for(program(every_prefix=True), "tensorflow")
