from __future__ import annotations

import math

import numpy as np
import pytest

from tests.unit.model.architectures import layer, model_file, program
from worker.errors import ModelNotStreamable
from worker.model.compile import compile_model

LSTM = layer("LSTM", units=4)
EVERY_STEP = layer("LSTM", units=4, return_sequences=True)
DENSE = layer("Dense", units=1, activation="sigmoid")
NAMES = [f"layer_{number}" for number in range(3)]


def piece(start, stop, step=None):
    return {"class_name": "__slice__", "config": {"start": start, "stop": stop, "step": step}}


EVERYTHING = piece(None, None)


def refusal(layers, **arguments) -> str:
    with pytest.raises(ModelNotStreamable) as refused:
        program(layers, **arguments)
    text = str(refused.value)
    assert "\n" not in text
    assert refused.value.hint
    return text


def test_a_last_output_is_exact_at_every_step():
    compiled = program([LSTM, DENSE])

    assert compiled.exactness == "prefix"
    assert [row.exact for row in compiled.plan] == ["every step", "every step"]


def test_flatten_is_exact_at_the_last_step_only():
    compiled = program([EVERY_STEP, layer("Flatten"), layer("Dense", units=3, activation="relu"), DENSE])

    assert compiled.exactness == "end"
    assert [row.exact for row in compiled.plan] == ["every step", "step 5", "step 5"]


def test_behind_strides_the_last_step_is_that_of_the_input():
    strided = [layer("MaxPooling1D", pool_size=2), EVERY_STEP, layer("Flatten"), layer("Dense", units=3), DENSE]

    after_pooling = [np.ones((5 * 4, 3), np.float32), np.ones(3, np.float32)]

    compiled = program(strided, timesteps=10, weights={"layer_3": after_pooling})

    assert [row.exact for row in compiled.plan] == ["from step 2, every 2"] * 2 + ["step 10"] * 2


@pytest.mark.parametrize(
    ("layers", "floats"),
    [
        ([LSTM, DENSE], 8),
        ([layer("GRU", units=4), DENSE], 4),
        ([layer("SimpleRNN", units=4), DENSE], 4),
        ([EVERY_STEP, layer("Flatten"), layer("Dense", units=3), DENSE], 8 + 3),
    ],
)
def test_the_state_is_two_vectors_of_an_lstm_one_of_others_and_the_running_sum(layers, floats):
    assert program(layers).state_size == floats


@pytest.mark.parametrize(
    "layers",
    [
        [LSTM, DENSE],
        [LSTM, layer("Dense", units=1), layer("Activation", activation="sigmoid")],
        [LSTM, layer("Dense", units=1, activation={"class_name": "function", "config": "sigmoid"})],
        [LSTM, DENSE, layer("Dropout", rate=0.1)],
    ],
)
def test_the_heads_activation_is_kept_apart_from_the_logits(layers):
    compiled = program(layers)
    logits = compiled.whole(np.ones((1, 5, 3)))[:, -1]

    assert compiled.activation == "sigmoid"
    assert compiled.outputs_of(logits) == pytest.approx(1 / (1 + np.exp(-logits)))


def test_a_head_without_probabilities_is_no_probability():
    assert not program([LSTM, layer("Dense", units=1)]).is_probability


def test_keras_2_and_3_differ_in_hard_sigmoid():
    layers = [layer("LSTM", units=4, recurrent_activation="hard_sigmoid"), DENSE]
    sample = np.ones((1, 5, 3))

    old, new = program(layers, keras_major=2), program(layers, keras_major=3)

    assert not np.allclose(old.whole(sample), new.whole(sample), atol=1e-4)
    assert old.fingerprint != new.fingerprint


def test_the_fingerprint_changes_with_a_single_weight():
    kernel = np.zeros((3, 16), np.float32)
    changed = kernel.copy()
    changed[2, 15] = np.float32(1e-6)
    rest = [np.zeros((4, 16), np.float32), np.zeros(16, np.float32)]

    one = program([LSTM, DENSE], weights={"layer_0": [kernel, *rest]})
    other = program([LSTM, DENSE], weights={"layer_0": [changed, *rest]})

    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    "other",
    [
        [layer("LSTM", units=4, activation="relu"), DENSE],
        [LSTM, layer("Dense", units=1, activation="softmax")],
        [LSTM, layer("LeakyReLU"), DENSE],
    ],
)
def test_the_fingerprint_changes_with_the_architecture(other):
    weights = {"layer_2": [np.zeros((4, 1), np.float32), np.zeros(1, np.float32)]}

    assert program([LSTM, DENSE]).fingerprint != program(other, weights=weights).fingerprint


def test_the_fingerprint_does_not_depend_on_names_or_on_how_the_model_was_trained():
    weights = model_file([LSTM, DENSE])
    renamed = [
        layer("LSTM", units=4, name="encoder", kernel_initializer="zeros", trainable=False),
        layer("Dense", units=1, activation="sigmoid", name="head", kernel_regularizer=None),
    ]
    same = {"encoder": weights.weights("layer_0", "LSTM", 0), "head": weights.weights("layer_1", "Dense", 0)}

    assert program(renamed, weights=same).fingerprint == program([LSTM, DENSE]).fingerprint


DOTS = {"class_name": "__ellipsis__", "config": {}}


@pytest.mark.parametrize(
    ("class_name", "config", "said"),
    [
        ("Lambda", {}, "nothing in a file is executed"),
        ("Bidirectional", {}, "the backward half needs the last step first"),
        ("Conv1D", {"filters": 3, "kernel_size": [3], "padding": "same"}, "looks at later steps"),
        ("Conv1D", {"filters": 3, "groups": 2}, "2 groups do not divide 3 features into 3"),
        ("Conv1D", {"filters": 3, "kernel_size": 1 << 15}, "its window is"),
        ("MaxPooling1D", {"pool_size": 2, "padding": "same"}, "looks at later steps"),
        ("MaxPooling1D", {"pool_size": 2, "padding": "same"}, "train the model with padding='valid'"),
        ("Concatenate", {}, "one value"),
        ("Reshape", {"target_shape": [3, 5]}, "another shape"),
        ("Normalization", {"axis": [0]}, "numbers for each sequence"),
        ("Normalization", {"axis": [[1]]}, "numbers for each sequence"),
        ("Normalization", {"mean": [1, 2], "variance": [1, 2]}, "mean is no list of numbers of the shape (3,)"),
        ("Normalization", {"axis": [1, 2]}, "implies mean and variance of (5, 3), the file has none"),
        ("BatchNormalization", {"axis": [1, 2]}, "over time"),
        ("LayerNormalization", {"axis": [1, 2]}, "over time"),
        ("GroupNormalization", {}, "over time"),
        ("TimeDistributed", {"layer": {"class_name": "LSTM", "config": {}}}, "single steps"),
        ("Masking", {"mask_value": "x"}, "mask_value is 'x'"),
        ("PReLU", {}, "slopes"),
        ("Embedding", {"output_dim": 3}, "not one id a step: give it an input of shape (T,) that only"),
        ("MultiHeadAttention", {}, "without a causal mask needs the whole window: call it with use_causal_mask=True"),
        ("Attention", {"use_causal_mask": True}, "it is called with 1 value(s): call it with query and value"),
        ("MyLayer", {}, "this class of layer is not known: the layers that can be stepped"),
        ("LSTM", {"units": 4, "go_backwards": True}, "backwards"),
        ("LSTM", {"units": 4, "return_state": True}, "returns its state"),
        ("LSTM", {"units": 4, "time_major": True}, "time as the first axis"),
        ("LSTM", {"units": 4, "use_bias": "no"}, "use_bias is 'no'"),
        ("LSTM", {"units": 4, "return_sequences": 1}, "return_sequences is 1"),
        ("Rescaling", {"scale": math.nan}, "a parameter is nan"),
        ("Rescaling", {"scale": [1, 2]}, "scale has 2 numbers for 3 features"),
        ("Rescaling", {"scale": 10**400}, "not a number"),
        ("LeakyReLU", {"negative_slope": "big"}, "a parameter is 'big'"),
        ("ReLU", {"max_value": math.inf}, "a parameter is inf"),
        ("ZeroPadding1D", {"padding": [2, 1]}, "only at its end: train with ZeroPadding1D((3, 0))"),
        ("ZeroPadding1D", {"padding": "same"}, "padding is 'same', not two whole numbers"),
        ("ZeroPadding1D", {"padding": [1, 0], "data_format": "channels_first"}, "channels first"),
        ("Cropping1D", {"cropping": [1, -1]}, "cropping is a list, not two whole numbers"),
        ("Cropping1D", {"cropping": [1, True]}, "cropping is a list, not two whole numbers"),
        ("RNN", {"cell": {"class_name": "MyCell", "config": {}}}, "use LSTMCell, GRUCell, SimpleRNNCell"),
        ("RNN", {"cell": {"class_name": "LSTMCell", "config": "x"}}, "its cell is not one of Keras' own"),
        ("RNN", {"cell": {"class_name": "StackedRNNCells", "config": {"cells": 3}}}, "not one of Keras' own"),
        ("RNN", {"cell": {"class_name": "StackedRNNCells", "config": {"cells": []}}}, "it has no cell"),
        ("RNN", {}, "its cell is not one of Keras' own"),
        ("GetItem", {"keys": 3}, "something else than steps"),
        ("GetItem", {"keys": [EVERYTHING, "x"]}, "something else than steps"),
        ("GetItem", {"keys": [EVERYTHING, piece("x", None)]}, "something else than steps"),
        ("GetItem", {"keys": [EVERYTHING, piece(None, "x")]}, "something else than steps"),
        ("GetItem", {"keys": [EVERYTHING, piece(True, None)]}, "something else than steps"),
        ("GetItem", {"keys": [EVERYTHING, piece(None, 3)]}, "other steps than one"),
        ("GetItem", {"keys": [EVERYTHING, piece(-3, None)]}, "other steps than one"),
        ("GetItem", {"keys": [EVERYTHING, piece(1, None, 2)]}, "other steps than one"),
        ("GetItem", {"keys": [EVERYTHING, piece(1, 0)]}, "other steps than one"),
        ("GetItem", {"keys": [EVERYTHING, EVERYTHING, 1]}, "something else than steps"),
        ("GetItem", {"keys": [EVERYTHING, EVERYTHING, piece(5, None)]}, "no features"),
        ("GetItem", {"keys": [EVERYTHING, EVERYTHING, piece(None, None, -1)]}, "backwards"),
        ("GetItem", {"keys": [DOTS, DOTS]}, "something else than steps"),
        ("GetItem", {"keys": [EVERYTHING, EVERYTHING, EVERYTHING, EVERYTHING]}, "something else than steps"),
        ("GetItem", {"keys": [EVERYTHING, 5]}, "it takes step 6 of 5"),
        ("GetItem", {"keys": [piece(1, None), -1]}, "something else than steps"),
    ],
)
def test_a_layer_that_cannot_be_stepped_is_refused_by_name_with_the_reason(class_name, config, said):
    text = refusal([layer(class_name, name="culprit", **config), LSTM, DENSE], timesteps=5)

    assert "'culprit'" in text
    assert class_name in text
    assert said in text


def test_a_distributed_reshape_that_is_not_flatten_is_refused():
    inner = {"class_name": "Reshape", "config": {"target_shape": [1, 3]}}

    assert "it gives the steps another shape" in refusal([layer("TimeDistributed", layer=inner), LSTM, DENSE])


def test_sequences_that_end_before_the_first_output_are_refused():
    window = layer("MaxPooling1D", pool_size=4, strides=1)

    assert "first output at step 4, and its sequences end at step 3" in refusal([window, LSTM, DENSE], timesteps=3)
    assert program([window, LSTM, DENSE], timesteps=4).exact_from == 4


@pytest.mark.parametrize("units", ["4", -4, 0, 10**12, 4.0, True, None, [4], {"a": 1}])
@pytest.mark.parametrize("class_name", ["LSTM", "GRU", "SimpleRNN", "Dense"])
def test_units_that_are_no_whole_number_within_bounds_are_refused_before_anything_is_allocated(class_name, units):
    layers = [LSTM, DENSE] if class_name != "Dense" else [LSTM]

    text = refusal([layer(class_name, units=units, use_bias=False), *layers], weights={key: [] for key in NAMES})

    assert "units is" in text


@pytest.mark.parametrize("activation", ["glu", "os.system", 7, ["tanh"], {"config": {"name": "tanh"}}])
def test_an_activation_that_is_not_on_the_list_is_refused(activation):
    assert "use one of" in refusal([layer("LSTM", units=4, activation=activation), DENSE])


@pytest.mark.parametrize(
    "weights",
    [
        [],
        [np.zeros((3, 16), np.float32)],
        [np.zeros((3, 12), np.float32), np.zeros((4, 16), np.float32), np.zeros(16, np.float32)],
        [np.zeros((16, 3), np.float32), np.zeros((4, 16), np.float32), np.zeros(16, np.float32)],
        [np.zeros((3, 16), np.float32), np.zeros((4, 16), np.float32), np.zeros(32, np.float32)],
        [np.zeros((3, 16), np.float32), np.zeros((4, 16), np.float32), np.zeros(16, np.float32), np.zeros(1, "f4")],
    ],
)
def test_weights_of_other_shapes_than_the_configuration_implies_are_refused(weights):
    text = refusal([LSTM, DENSE], weights={"layer_0": weights})

    assert "'layer_0'" in text
    assert "[(3, 16), (4, 16), (16,)]" in text


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([EVERY_STEP, layer("Flatten")], "ends with Flatten"),
        ([LSTM, LSTM, DENSE], "return_sequences=True in the layer before"),
        ([EVERY_STEP, layer("Flatten"), LSTM], "no sequence reaches it"),
        ([EVERY_STEP, layer("Flatten"), layer("Activation", activation="softmax"), DENSE], "needs all of them"),
        ([EVERY_STEP, layer("Flatten", data_format="channels_first"), DENSE], "channels first"),
    ],
)
def test_an_architecture_that_ends_in_no_output_is_refused(layers, said):
    assert said in refusal(layers)


def test_flatten_without_a_number_of_steps_asks_for_it():
    layers = [EVERY_STEP, layer("Flatten"), DENSE]
    weights = {"layer_2": [np.zeros((20, 1), np.float32), np.zeros(1, np.float32)]}

    assert "sequence.length" in refusal(layers, timesteps=None, weights=weights)
    given = compile_model(model_file(layers, timesteps=None, weights=weights), 5)
    assert given.timesteps == 5


def test_a_state_beyond_its_bound_is_refused(monkeypatch):
    monkeypatch.setattr("worker.model.compile.STATE_FLOATS_MAX", 7)

    assert "8 floats of state" in refusal([LSTM, DENSE])


@pytest.mark.parametrize(("class_name", "arrays"), [("BatchNormalization", 4), ("LayerNormalization", 2)])
def test_the_features_are_axis_1_inside_of_time_distributed_also_where_there_are_as_many_as_steps(class_name, arrays):
    inner = {"class_name": class_name, "config": {"axis": 1}}
    weights = {"norm": [np.arange(1, 4, dtype=np.float32) for _ in range(arrays)]}
    layers = [layer("TimeDistributed", layer=inner, name="norm"), layer("GlobalMaxPooling1D")]
    samples = np.random.default_rng(1).standard_normal((2, 3, 3))
    plain = [layer(class_name, name="norm"), layers[1]]

    found, wanted = (program(each, timesteps=3, weights=weights).whole(samples) for each in (layers, plain))

    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("steps", ["5", -1, 10**9, 2.5, True])
def test_timesteps_out_of_bounds_are_refused(steps):
    file = model_file([LSTM, DENSE])
    file.configuration["config"]["layers"][0]["config"]["batch_shape"] = [None, steps, 3]

    with pytest.raises(ModelNotStreamable, match="timesteps"):
        compile_model(file)


@pytest.mark.parametrize(
    "shape", [[None, 5], [None, 5, 3, 1, 1, 1], "x", 7, {}, [None, 5, None], [None, 5, 10**9], None]
)
def test_an_input_that_is_no_bounded_sequence_of_features_is_refused(shape):
    file = model_file([LSTM, DENSE])
    file.configuration["config"]["layers"][0]["config"]["batch_shape"] = shape

    with pytest.raises(ModelNotStreamable, match="features"):
        compile_model(file)


@pytest.mark.parametrize(
    "configuration",
    [
        {},
        {"class_name": "Functional", "config": {"layers": []}},
        {"class_name": ["Sequential"], "config": {}},
        {"class_name": "Sequential"},
        {"class_name": "Sequential", "config": 7},
        {"class_name": "Sequential", "config": {"layers": {}}},
        {"class_name": "Sequential", "config": {"layers": []}},
        {"class_name": "Sequential", "config": {"layers": [None]}},
        {"class_name": "Sequential", "config": {"layers": [{"class_name": "LSTM"}]}},
        {"class_name": "Sequential", "config": {"layers": [{"class_name": "LSTM", "config": []}]}},
        {"class_name": "Sequential", "config": {"layers": [{"class_name": "L\nSTM", "config": {}}]}},
        {"class_name": "Sequential", "config": {"layers": [{"class_name": "LSTM", "config": {"name": ["x"]}}]}},
        {"class_name": "Sequential", "config": {"layers": [{"class_name": "LSTM", "config": {}}]}},
        {"class_name": "Sequential", "config": {"layers": [{"class_name": "LSTM", "config": {}}] * 1001}},
        {"class_name": "Sequential", "config": {"layers": [[[]]]}},
    ],
)
def test_a_configuration_of_another_form_is_refused_in_one_line(configuration):
    file = model_file([LSTM, DENSE])
    file.configuration = configuration

    with pytest.raises(ModelNotStreamable, match=r"random\.keras") as refused:
        compile_model(file)
    assert "\n" not in str(refused.value)
