"""Writes golden files of activations and operators; `python -m tests.goldens.make_functions`.

As make_graphs.py; nothing lies between a function and what is predicted that would make its differences smaller.
"""

from __future__ import annotations

import zlib

import numpy as np

from tests.goldens.make_graphs import answers, functional_models
from tests.goldens.writing import FEATURES, GRAPHS, SEQUENCES, TIMESTEPS, quiet_keras, save, set_random_weights

NAMES = (
    *(
        "linear",
        "tanh",
        "sigmoid",
        "softmax",
        "log_softmax",
        "relu",
        "relu6",
        "leaky_relu",
        "elu",
        "selu",
        "celu",
        "gelu",
    ),
    *("softplus", "squareplus", "sparse_plus", "softsign", "exponential", "mish", "silu", "swish", "hard_silu"),
    *("hard_swish", "hard_sigmoid", "log_sigmoid", "sparse_sigmoid", "hard_tanh", "hard_shrink", "soft_shrink"),
    "tanh_shrink",
)
"""All activations of Keras 3 that are served."""
ALSO_HDF5 = ("activation_layers", "operators_with_constants", "picked_features", "each_step_by_itself")
SHORTEST = {"picked_features": 3}
"""Steps of the first prefix that has an answer, where it is not the first."""


def functions(keras):
    """Name → function of the input, steps; a number of steps where the model fixes it."""
    lay, ops = keras.layers, keras.ops
    every = {"return_sequences": True}

    def activation_layers(x):
        """Named as functions are that they are not."""
        slope, steep = lay.LeakyReLU(0.01, name="leaky_relu"), lay.LeakyReLU(negative_slope=2.0)
        capped = lay.ReLU(max_value=0.4, name="relu")
        parts = [
            *(lay.Dense(2, activation=each)(x) for each in (lay.ELU(alpha=0.2, name="elu"), slope, steep, capped)),
            lay.Dense(2, activation=lay.ReLU(negative_slope=0.1, threshold=0.5))(x),
            lay.Dense(3, activation=lay.Softmax(name="relu"))(x),
            lay.Dense(3, activation=lay.Softmax(axis=2))(x),
            lay.Activation(lay.ELU(alpha=0.3))(x),
            lay.TimeDistributed(lay.Dense(3, activation=lay.Softmax(axis=1)))(x),
            lay.LSTM(3, activation=lay.ELU(alpha=0.3), recurrent_activation=lay.Softmax(axis=1), **every)(x),
            lay.GRU(2, activation=lay.LeakyReLU(), recurrent_activation=lay.ReLU(max_value=1.0), **every)(x),
            lay.SimpleRNN(2, activation=lay.Activation("softsign"), **every)(x),
            lay.RNN(lay.LSTMCell(2, activation=lay.ELU(alpha=0.5)), **every)(x),
            lay.Conv1D(2, 2, padding="causal", activation=lay.ELU(alpha=0.4))(x),
        ]
        return lay.Concatenate()(parts)

    def activations(x):
        """Each by its name, of values large enough that those with bends differ, and some in recurrent layers."""
        y = lay.Rescaling(2.5)(lay.Dense(3)(x))
        recurrent = [
            lay.LSTM(2, activation="gelu", recurrent_activation="hard_tanh", **every)(x),
            lay.GRU(2, activation="mish", recurrent_activation="sparse_sigmoid", **every)(x),
            lay.SimpleRNN(2, activation="soft_shrink", **every)(x),
        ]
        return lay.Concatenate()([*(lay.Activation(name)(y) for name in NAMES), *recurrent])

    def operators_with_constants(x):
        """With constants, of one value and of two."""
        above = ops.abs(x) + 0.5
        each = np.array([0.5, -1.0, 2.0], np.float32)
        parts = [
            *(x * 2, 3 * x, x + 1, 1 + x, x - 1, 1 - x, x / 3, 2 / above, -x, x**2, above**1.5, 2**x),
            *(x * each, x - each, ops.convert_to_tensor(each) - x, x / each, x / above, above**x),
            *(ops.maximum(x, 0.1), ops.minimum(0.2, x), ops.maximum(x, each), x + keras.activations.relu(-x)),
        ]
        return lay.Concatenate()(parts)

    def functions_of_one_value(x):
        above = ops.abs(x) + 0.5
        parts = [
            *(ops.square(x), ops.sqrt(above), ops.rsqrt(above), ops.reciprocal(above), ops.log(above), ops.sign(x)),
            *(ops.log1p(above), ops.expm1(x), ops.exp(x), ops.sin(x), ops.cos(x), ops.clip(x, -0.5, 0.7)),
            *(ops.gelu(x), ops.gelu(x, approximate=False), ops.leaky_relu(x), ops.leaky_relu(x, negative_slope=0.01)),
            *(ops.elu(x), ops.elu(x, alpha=0.3), ops.celu(x, alpha=0.7), ops.squareplus(x, b=2), ops.relu6(4 * x)),
            *(ops.soft_shrink(x, 0.2), ops.hard_shrink(x, 0.2), ops.threshold(x, 0.1, -0.3), ops.log_softmax(x)),
            *(ops.hard_silu(x), ops.hard_tanh(x), ops.log_sigmoid(x), ops.sparse_plus(x), ops.sparse_sigmoid(x)),
            *(ops.tanh_shrink(x), ops.selu(x), ops.silu(x), ops.softplus(x), ops.softsign(x), ops.hard_sigmoid(x)),
        ]
        return lay.Concatenate()(parts)

    def picked_features(x):
        y = lay.LSTM(4, **every)(x)
        vectors = [y[..., -1, :], y[:, -1, 0:2], y[:, 2, 1:], lay.GRU(3)(y[..., :3])[:, 1:], lay.GRU(2)(y[:, 1:, ::2])]
        return lay.Concatenate()([*vectors, lay.SimpleRNN(2)(lay.Add()([y[..., 1:3], x[:, :, -2:]]))])

    def each_step_by_itself(x):
        inner = lay.LayerNormalization(rms_scaling=True)(lay.Dense(4)(x))
        parts = [
            *(lay.Conv1D(6, 2, groups=3, padding="causal", activation="tanh")(x), lay.Conv1D(2, 1, padding="same")(x)),
            *(lay.MaxPooling1D(1, padding="same")(x), lay.AveragePooling1D(1, padding="same")(x)),
            *(lay.DepthwiseConv1D(1, padding="same")(x), lay.SeparableConv1D(2, 1, padding="same")(x)),
            *(inner, lay.Softmax(axis=2)(x), lay.TimeDistributed(lay.Softmax(axis=1))(x)),
            lay.Rescaling([0.5, 2.0, -1.0], [0.0, 1.0, -2.0])(x),
            *(lay.PReLU(shared_axes=[1, 2])(x), lay.TimeDistributed(lay.PReLU())(x)),
            lay.Normalization(axis=None)(x),
            lay.Normalization(axis=-1, invert=True)(x),
            lay.Normalization(axis=None, mean=0.5, variance=2.0)(x),
            *(lay.TimeDistributed(lay.Flatten())(x), lay.TimeDistributed(lay.Reshape((-1,)))(x)),
            lay.Reshape((-1, FEATURES))(x),
        ]
        return lay.Concatenate()(parts)

    def summaries(x):
        over_time = [ops.mean(x, axis=-2), ops.max(x, axis=-2), ops.min(x, axis=-2), ops.sum(x, axis=-2)]
        return lay.Concatenate()([*over_time, lay.Softmax(axis=1)(lay.LSTM(3)(x))])

    def numbers_of_each_step(x):
        parts = [
            *(lay.PReLU(shared_axes=[2])(x), lay.PReLU()(lay.Reshape((TIMESTEPS, FEATURES))(x))),
            *(
                lay.Normalization(axis=(1, 2))(x),
                lay.Normalization(axis=1)(x),
                lay.Normalization(axis=-2, invert=True)(x),
            ),
        ]
        return lay.Concatenate()(parts)

    def numbers_of_a_flattened_sequence(x):
        y = lay.GRU(2, **every)(x)
        joined = lay.Concatenate()([lay.Flatten()(y), lay.LSTM(2)(x), lay.Flatten()(x)])
        parts = [
            lay.Dense(2)(lay.BatchNormalization()(joined)),
            lay.Dense(2)(lay.Normalization()(lay.Flatten()(y))),
            lay.Dense(2)(lay.PReLU(shared_axes=[1])(lay.Flatten()(y))),
            lay.Dense(2)(lay.Reshape((TIMESTEPS * FEATURES,))(lay.Flatten()(x))),
        ]
        return lay.Dense(1, activation="sigmoid")(lay.Concatenate()(parts))

    of_any_length = (
        *(activation_layers, activations, operators_with_constants, functions_of_one_value, picked_features),
        *(each_step_by_itself, summaries),
    )
    of_one_length = numbers_of_each_step, numbers_of_a_flattened_sequence
    steps = dict.fromkeys(of_any_length) | dict.fromkeys(of_one_length, TIMESTEPS)
    return {each.__name__: (each, length) for each, length in steps.items()}


def main() -> None:
    """One `.keras` and one `.npz` for each, some also as `.h5`."""
    keras = quiet_keras()
    for name, model, steps in functional_models(keras, functions(keras)):
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        set_random_weights(model, generator)
        for layer in model.layers:
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # it predicts by what it was adapted to, not by its weights
        inputs = generator.standard_normal((SEQUENCES, TIMESTEPS, FEATURES)).astype(np.float32)
        prefixes = answers(model, inputs)
        for step in range(SHORTEST.get(name, 1), TIMESTEPS) if steps is None else ():
            at = prefixes[:, step - 1]
            prefixes[:, step - 1] = np.where(np.isnan(at), answers(model, inputs[:, :step])[:, -1], at)
        save(GRAPHS, model, ALSO_HDF5, inputs=inputs, prefixes=prefixes)


if __name__ == "__main__":
    main()
