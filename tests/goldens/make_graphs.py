"""Writes golden files of graphs, windows, masks and normalisations; `python -m tests.goldens.make_graphs`.

As make_goldens.py, with what Keras predicts for every prefix that is long enough: `prefixes` (N, T, K), NaN where the
model has nothing to say about one.
"""

from __future__ import annotations

import numpy as np

from tests.goldens.writing import (
    FEATURES,
    GRAPHS,
    SEQUENCES,
    TIMESTEPS,
    outputs,
    quiet_keras,
    save,
    set_random_weights,
    sigmoid_head,
)

MASK_VALUES = {"masked_recurrent": 0.0, "masked_average": -1.0, "masked_flatten": 0.0, "masked_per_step": 0.0}
ALSO_HDF5 = (
    *("shared_layers", "nested_models", "masked_recurrent", "strided_windows", "normalisations"),
    *("cells", "causal_attention", "masked_per_step", "head_behind_dropout"),
)


def functional(keras):
    """Name → function of the input, steps; a number of steps where the model fixes it."""
    lay, ops = keras.layers, keras.ops
    every = {"return_sequences": True}
    head = {"activation": "sigmoid"}

    def skip_connections(x):
        a = lay.LSTM(4, **every)(x)
        b = lay.GRU(4, **every)(a)
        joined = lay.Concatenate()([lay.Add()([a, b]), x])
        return lay.Dense(1, **head)(lay.LSTM(3)(joined))

    def shared_layers(x):
        dense, gru = lay.Dense(3), lay.GRU(3, **every)
        return lay.Dense(2, activation="softmax")(lay.LSTM(2)(gru(dense(gru(dense(x))))))

    def nested_models(x):
        inner = keras.Sequential(
            [lay.Input((None, 3)), lay.LSTM(3, **every), lay.Dense(3, activation="relu")], name="inner"
        )
        y = lay.Input((None, 3))
        outer = keras.Model(y, lay.Add()([inner(y), y]), name="outer")
        return lay.Dense(1, **head)(inner(outer(x))[:, -1])

    def operators(x):
        y = lay.LSTM(4, **every)(x)
        over_time = [ops.mean(y, axis=1), ops.max(y, axis=1), ops.min(y, axis=1), ops.sum(y, axis=1), y[:, -1, :]]
        pooled = [lay.GlobalAveragePooling1D()(y), lay.GlobalMaxPooling1D()(y)]
        return lay.Dense(1, **head)(ops.tanh(lay.Concatenate()([*over_time, *pooled])))

    def merges(x):
        a, b = lay.Dense(3)(x), lay.LSTM(3, **every)(x)
        parts = [lay.Multiply()([a, b]), lay.Minimum()([a, b]), lay.Average()([a, b, x]), lay.Subtract()([a, b])]
        y = lay.Maximum()(parts)
        return lay.Dense(1, **head)(lay.GRU(3)(y + ops.relu(y) * b))

    def two_heads(x):
        y = lay.LSTM(4)(x)
        return [lay.Dense(1, **head, name="one")(y), lay.Dropout(0.3)(lay.Dense(2, **head, name="two")(y))]

    def branches_of_one_length(x):
        a, b = lay.Conv1D(3, 3)(x), lay.Conv1D(3, 2, dilation_rate=2)(x)
        return lay.Dense(1, **head)(lay.LSTM(3)(lay.Add()([a, b])))

    def flattened_branches(x):
        y = lay.LSTM(2, **every)(x)
        parts = [lay.Dense(2)(lay.Flatten()(y)), lay.Dense(3)(lay.Flatten()(x))]
        return lay.Dense(1, **head)(lay.Concatenate()(parts))

    found = (
        *(skip_connections, shared_layers, nested_models, operators, merges, two_heads),
        *(branches_of_one_length, flattened_branches),
    )
    return {each.__name__: (each, TIMESTEPS if each is flattened_branches else None) for each in found}


def sequential(keras):
    """Name → layers, steps."""
    lay = keras.layers
    every = {"return_sequences": True}

    def head():
        return lay.Dense(1, activation="sigmoid")

    norms = [
        *(lay.BatchNormalization(), lay.LSTM(4, **every), lay.LayerNormalization(), lay.GRU(4, **every)),
        *(lay.UnitNormalization(), lay.RMSNormalization(), lay.BatchNormalization(scale=False), lay.LSTM(3)),
        *(lay.BatchNormalization(center=False), lay.LayerNormalization(scale=False), head()),
    ]
    adapted = lay.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 2.0])
    return {
        "masked_recurrent": ([lay.Masking(), lay.LSTM(4, **every), lay.Dense(3), lay.GRU(3), head()], None),
        "masked_average": (
            [lay.Masking(-1.0), lay.LeakyReLU(), lay.SimpleRNN(4, **every), lay.GlobalAveragePooling1D(), head()],
            None,
        ),
        "masked_flatten": ([lay.Masking(), lay.LSTM(4, **every), lay.Flatten(), head()], TIMESTEPS),
        "causal_convolutions": (
            [
                lay.Conv1D(4, 3, padding="causal", activation="relu"),
                lay.Conv1D(4, 2, padding="causal", dilation_rate=3),
                *(lay.LSTM(3), head()),
            ],
            None,
        ),
        "strided_windows": (
            [lay.Conv1D(4, 3, strides=2), lay.GRU(3, **every), lay.Conv1D(4, 2, padding="causal"), lay.LSTM(3), head()],
            None,
        ),
        "causal_strides": ([lay.Conv1D(4, 3, strides=2, padding="causal"), lay.GRU(3), head()], None),
        "pooled_windows": (
            [
                *(lay.LSTM(3, **every), lay.MaxPooling1D(2), lay.Conv1D(3, 2), lay.AveragePooling1D(2, strides=1)),
                *(lay.GRU(2), head()),
            ],
            None,
        ),
        "separable_windows": (
            [
                lay.DepthwiseConv1D(3, depth_multiplier=2),
                lay.SeparableConv1D(4, 2, activation="tanh"),
                *(lay.GlobalMaxPooling1D(), head()),
            ],
            None,
        ),
        "strided_flatten": ([lay.Conv1D(4, 3, strides=2), lay.LSTM(3, **every), lay.Flatten(), head()], TIMESTEPS),
        "normalisations": (norms, None),
        "adapted": ([adapted, lay.LSTM(3), head()], None),
        "slopes": (
            [lay.PReLU(shared_axes=[1]), lay.LSTM(3, **every), lay.PReLU(), lay.LSTM(2), lay.PReLU(), head()],
            TIMESTEPS,
        ),
        "distributed": (
            [
                lay.TimeDistributed(lay.Dense(4, activation="relu")),
                *(lay.LSTM(3, **every), lay.Reshape((TIMESTEPS * 3,)), head()),
            ],
            TIMESTEPS,
        ),
    }


def together(keras):
    """As `functional`: layers that are stepped together with the one after them, and parts of a sequence."""
    lay, ops = keras.layers, keras.ops
    every, head = {"return_sequences": True}, sigmoid_head(keras)

    def cells(x):
        y = lay.RNN(lay.LSTMCell(4), **every)(x)
        return head(lay.RNN([lay.GRUCell(3), lay.SimpleRNNCell(2), lay.GRUCell(3, reset_after=False)])(y))

    def zeros_before_windows(x):
        y = lay.Conv1D(4, 3)(lay.ZeroPadding1D((2, 0))(x))
        return head(lay.LSTM(3)(lay.MaxPooling1D(3, strides=2)(lay.ZeroPadding1D((1, 0))(y))))

    def cropped(x):
        return head(lay.GRU(3)(lay.Cropping1D((1, 2))(lay.LSTM(3, **every)(x))))

    def picked_steps(x):
        y = lay.LSTM(3, **every)(x)
        return head(y[:, 2], y[:, -3, :], lay.GRU(2)(y[:, 1:]), lay.GRU(2)(y[:, 1:-2, :]))

    def attention_pooling(x):
        y = lay.LSTM(4, **every)(x)
        weights = lay.Softmax(axis=1)(lay.Dense(1, activation="tanh")(y))
        return head(ops.sum(lay.Multiply()([y, weights]), axis=1))

    def attention_pooling_by_dot(x):
        y = lay.LSTM(4, **every)(x)
        dot = lay.Dot(axes=1)([lay.Softmax(axis=1)(lay.Dense(1)(y)), y])
        of_each_feature = lay.GlobalAveragePooling1D()(ops.softmax(lay.Dense(4)(y), axis=1) * y)
        return head(lay.Flatten()(dot), of_each_feature)

    def normalised_over_time(x):
        return head(lay.LSTM(3)(lay.BatchNormalization(axis=1)(lay.GRU(4, **every)(x))))

    def normalised_flatten(x):
        return head(lay.BatchNormalization()(lay.Flatten()(lay.LSTM(3, **every)(x))))

    def sloped_flatten(x):
        return head(lay.LeakyReLU()(lay.Flatten()(lay.LSTM(3, **every)(x))))

    def joined_flatten(x):
        y = lay.LSTM(3, **every)(x)
        joined = lay.Concatenate()([lay.Flatten()(y), lay.LSTM(2)(y), lay.Flatten()(lay.Conv1D(2, 3, strides=2)(x))])
        return head(lay.ReLU(negative_slope=0.1)(joined))

    def joined_dense(x):
        y = lay.LSTM(3, **every)(x)
        return head(lay.GRU(2)(y), lay.Dense(2, activation="relu")(lay.Flatten()(y)))

    def causal_attention(x):
        causal = {"use_causal_mask": True}
        y = lay.LSTM(4, **every)(x)
        one = lay.LayerNormalization()(y + lay.MultiHeadAttention(2, 3)(y, y, **causal))
        other = lay.MultiHeadAttention(3, 2, value_dim=4, output_shape=5, use_bias=False, dropout=0.1)
        key = lay.Dense(4)(x)
        parts = [
            other(query=one, value=x, key=key, **causal),
            lay.Attention(use_scale=True)([one, y], **causal),
            lay.Attention(use_scale=True, score_mode="concat")([one, x, key], **causal),
            lay.AdditiveAttention()([one, x, key], **causal),
        ]
        return head(lay.Concatenate()(parts)[:, -1])

    def unlike_heads(x):
        y = lay.LSTM(4)(x)
        classes = lay.Softmax()(lay.Dense(3)(y))
        return [lay.Dense(2)(y), classes, lay.Dense(1, activation="sigmoid")(lay.GRU(2)(x)), lay.Activation("tanh")(y)]

    of_any_length = cells, zeros_before_windows, cropped, picked_steps, attention_pooling, attention_pooling_by_dot
    of_one_length = normalised_over_time, normalised_flatten, sloped_flatten, joined_flatten, joined_dense
    steps = (
        dict.fromkeys(of_any_length)
        | dict.fromkeys(of_one_length, TIMESTEPS)
        | dict.fromkeys([causal_attention, unlike_heads])
    )
    return {each.__name__: (each, steps[each]) for each in steps}


def per_step(keras):
    """As `functional`: models that give one output per step."""
    lay = keras.layers
    every = {"return_sequences": True}

    def one_per_step(x):
        return lay.Dense(1, activation="sigmoid")(lay.LeakyReLU()(lay.LSTM(4, **every)(x)))

    def masked_per_step(x):
        y = lay.GRU(3, **every)(lay.Masking()(x))
        y = lay.LSTM(4, **every, zero_output_for_mask=True)(lay.Dense(3)(y))
        return lay.TimeDistributed(lay.Dense(3, activation="softmax"))(y)

    def windows_per_step(x):
        y = lay.LSTM(4, **every)(lay.Conv1D(4, 3, activation="relu")(x))
        return lay.Softmax()(lay.Dense(3)(lay.Conv1D(3, 2, padding="causal")(y)))

    def per_step_and_last(x):
        y = lay.LSTM(4, **every)(x)
        return [lay.Dense(1, activation="sigmoid")(y), lay.Dense(2, activation="softmax")(lay.GRU(3)(y))]

    found = one_per_step, masked_per_step, windows_per_step, per_step_and_last
    return {each.__name__: (each, TIMESTEPS if each is one_per_step else None) for each in found}


def taken_heads(keras):
    """As `functional`: heads whose outputs other layers take."""
    lay = keras.layers
    every, head = {"return_sequences": True}, sigmoid_head(keras)

    def head_of_a_head(x):
        first = lay.Dense(2, activation="sigmoid")(lay.GRU(3)(x))
        return [first, head(lay.Dropout(0.2)(first))]

    def head_behind_dropout(x):
        classes = lay.Activation("softmax")(lay.Dense(3)(lay.LSTM(3)(x)))
        dropped = lay.Dropout(0.2)(classes)
        return [dropped, head(classes, lay.GRU(2)(x)), classes]

    def steps_of_a_head(x):
        classes = lay.Dense(3, activation="softmax")(lay.LSTM(3, **every)(x))
        return [classes, lay.TimeDistributed(lay.Dense(1, activation="sigmoid"))(lay.GRU(2, **every)(classes))]

    def last_of_a_head(x):
        first = lay.TimeDistributed(lay.Dense(2, activation="sigmoid"))(lay.GRU(3, **every)(x))
        return [first, head(lay.LSTM(3)(first))]

    def head_of_a_flattened_head(x):
        first = lay.Dense(2, activation="sigmoid")(lay.Flatten()(lay.LSTM(2, **every)(x)))
        return [first, head(first, lay.GRU(2)(x))]

    def head_of_a_nested_head(x):
        y = lay.Input((None, FEATURES))
        first = lay.Dense(2, activation="sigmoid")(lay.GRU(3)(y))
        inner = keras.Model(y, [first, lay.Dense(2, activation="softmax")(first)], name="inner")
        first, classes = inner(x)
        return [first, classes, head(lay.Add()([first, classes]))]

    of_any_length = head_of_a_head, head_behind_dropout, steps_of_a_head, last_of_a_head, head_of_a_nested_head
    steps = {**dict.fromkeys(of_any_length), head_of_a_flattened_head: TIMESTEPS}
    return {each.__name__: (each, steps[each]) for each in steps}


def models(keras):
    """Name → model, number of steps where it is fixed."""
    yield from functional_models(keras, functional(keras))
    for name, (layers, steps) in sequential(keras).items():
        keras.utils.set_random_seed(len(name))
        yield name, keras.Sequential([keras.layers.Input((steps, FEATURES)), *layers], name=name), steps
    yield from functional_models(keras, together(keras))
    yield from functional_models(keras, per_step(keras))
    yield from functional_models(keras, taken_heads(keras))


def functional_models(keras, functions):
    for name, (function, steps) in functions.items():
        keras.utils.set_random_seed(len(name))
        inputs = keras.layers.Input((steps, FEATURES))
        yield name, keras.Model(inputs, function(inputs), name=name), steps


def answers(model, inputs):
    """What Keras predicts for the sequences, (N, T, K): an output of the sequence is step T's, those for each step end
    with it, and where there is none it is NaN."""
    parts = []
    for output in outputs(model, inputs):
        known = output if output.ndim == 3 else output[:, None]
        before = np.full((len(inputs), inputs.shape[1] - known.shape[1], known.shape[2]), np.nan, np.float32)
        parts.append(np.concatenate([before, known], axis=1))
    return np.concatenate(parts, axis=2)


def main() -> None:
    """One `.keras` and one `.npz` for each, some also as `.h5`."""
    generator = np.random.default_rng(21)
    for name, model, steps in models(quiet_keras()):
        set_random_weights(model, generator)
        inputs = generator.standard_normal((SEQUENCES, TIMESTEPS, FEATURES)).astype(np.float32)
        if name in MASK_VALUES:
            inputs[[0, 1, 1, 2, 2, 3], [3, 1, 2, 5, 6, TIMESTEPS - 1]] = MASK_VALUES[name]
        prefixes = answers(model, inputs)
        shortest = 7  # the longest window of all models needs six steps
        for step in range(shortest, TIMESTEPS) if steps is None else ():
            at = prefixes[:, step - 1]
            prefixes[:, step - 1] = np.where(np.isnan(at), answers(model, inputs[:, :step])[:, -1], at)
        save(GRAPHS, model, ALSO_HDF5, inputs=inputs, prefixes=prefixes)


if __name__ == "__main__":
    main()
