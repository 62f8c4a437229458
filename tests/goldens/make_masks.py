"""Writes golden files of masked models, as make_graphs.py does; `python -m tests.goldens.make_masks`.

A fifth of the steps are zeros, another fifth are ones: what `Masking(0.0)` and `Masking(1.0)` leave out.
"""

from __future__ import annotations

import numpy as np

from tests.goldens.writing import (
    FEATURES,
    GRAPHS,
    SEQUENCES,
    TIMESTEPS,
    of_prefixes,
    quiet_keras,
    save,
    set_random_weights,
    sigmoid_head,
)

ALSO_HDF5 = ("masks_merged", "mask_passed_on")
WINDOWED = {"mask_dropped": 7, "mask_behind_strides": 5}
"""From which step on Keras has enough samples."""


def functional(keras):
    """Name → function of the input."""
    lay, ops = keras.layers, keras.ops
    every, head = {"return_sequences": True}, sigmoid_head(keras)

    def masks_merged(x):
        a, b = lay.Dense(3)(lay.Masking(0.0)(x)), lay.LSTM(3, **every)(lay.Masking(1.0)(x))
        kinds = (lay.Add, lay.Subtract, lay.Multiply, lay.Average, lay.Maximum, lay.Minimum, lay.Concatenate)
        return head(*[lay.GRU(2)(kind()([a, b])) for kind in kinds])

    def mask_of_one_part(x):
        a = lay.Dense(3)(lay.Masking(0.0)(x))
        joined = lay.Concatenate()([a, x])
        return head(lay.GRU(2)(lay.Add()([a, x])), lay.GlobalAveragePooling1D()(joined), lay.LSTM(2)(joined))

    def masks_merged_twice(x):
        zeros, ones = lay.Masking(0.0)(x), lay.Masking(1.0)(x)
        one = lay.Concatenate()([lay.Dense(2)(zeros), lay.Dense(2)(zeros)])
        other = lay.Add()([lay.Dense(4)(ones), lay.SimpleRNN(4, **every)(zeros)])
        return head(lay.LSTM(3)(lay.Multiply()([one, other])), lay.GRU(2)(one), lay.GRU(2)(lay.Masking(1.0)(zeros)))

    def mask_inside(x):
        sparse = lay.Masking()(lay.ReLU()(lay.Dense(2)(x)))
        return head(lay.LSTM(3)(sparse), lay.GRU(2)(lay.Add()([sparse, lay.Dense(2)(lay.Masking(1.0)(x))])))

    def mask_passed_on(x):
        y = lay.Masking(1.0)(x)
        passing = (
            *(lay.Dense(3), lay.Activation("tanh"), lay.LeakyReLU(), lay.ELU(), lay.PReLU(shared_axes=[1])),
            *(lay.Rescaling(0.7, 0.1), lay.Identity(), lay.Dropout(0.3), lay.SpatialDropout1D(0.3)),
            *(lay.GaussianNoise(0.3), lay.GaussianDropout(0.3), lay.AlphaDropout(0.3), lay.ActivityRegularization()),
            *(lay.BatchNormalization(), lay.LayerNormalization(), lay.UnitNormalization()),
            *(lay.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]), lay.LSTM(3, **every)),
            *(lay.TimeDistributed(lay.Dense(3)), lay.TimeDistributed(lay.RMSNormalization())),
        )
        for layer in passing:
            y = layer(y)
        return head(lay.GRU(3)(y), lay.GlobalAveragePooling1D()(y))

    def mask_dropped(x):
        y = lay.LSTM(3, **every)(lay.Masking(0.0)(x))
        dropping = (
            *(lay.RMSNormalization(), lay.Conv1D(2, 2, padding="causal"), lay.MaxPooling1D(2), lay.Cropping1D((1, 0))),
            *(lay.AveragePooling1D(2, strides=1), lay.DepthwiseConv1D(2), lay.SeparableConv1D(2, 2)),
        )
        return head(lay.GlobalMaxPooling1D()(y), *[lay.GRU(2)(layer(y)) for layer in dropping])

    def mask_dropped_by_operations(x):
        zeros = lay.Masking(0.0)(x)
        y, other = lay.LSTM(3, **every)(zeros), lay.Dense(3)(zeros)
        merged = [kind()([other, y]) for kind in (lay.Multiply, lay.Maximum, lay.Minimum)]
        summaries = [ops.mean(y, axis=1), ops.max(y, axis=1), ops.min(y, axis=1), y[:, -1]]
        summaries += [ops.sum(each, axis=1) for each in merged]
        return head(*summaries, *[lay.GRU(2)(each) for each in (y + y, ops.tanh(y), ops.concatenate([y, y], -1))])

    def zeros_for_masked_steps(x):
        zeros = {"zero_output_for_mask": True}
        y = lay.LSTM(3, **every, **zeros)(lay.Masking(0.0)(x))
        last = [lay.GRU(2, **zeros)(y), lay.SimpleRNN(2, **zeros)(lay.Masking(1.0)(x))]
        return head(*last, lay.LSTM(2)(ops.tanh(lay.GRU(3, **every, **zeros)(y))))

    def masked_cells(x):
        y = lay.Masking(1.0)(x)
        stacked = lay.RNN([lay.GRUCell(3), lay.LSTMCell(2)], zero_output_for_mask=True, **every)(y)
        return head(lay.RNN(lay.SimpleRNNCell(3))(y), lay.GRU(2)(lay.RNN(lay.LSTMCell(2), **every)(stacked)))

    def masked_nested_models(x):
        inner = keras.Sequential([lay.Input((None, 3)), lay.Dense(3), lay.LSTM(3, **every)], name="inner")
        y = lay.Input((None, 3))
        outer = keras.Model(y, lay.Add()([inner(y), lay.Masking(0.0)(y)]), name="outer")
        return head(lay.GRU(2)(inner(lay.Masking(1.0)(x))), lay.GRU(2)(outer(x)))

    def mask_behind_strides(x):
        y = lay.Masking()(lay.ReLU()(lay.Conv1D(2, 3, strides=2)(x)))
        return head(lay.LSTM(3)(lay.GRU(3, **every)(y)), lay.SimpleRNN(2, zero_output_for_mask=True)(y))

    found = (
        *(masks_merged, mask_of_one_part, masks_merged_twice, mask_inside, mask_passed_on, mask_dropped),
        *(mask_dropped_by_operations, zeros_for_masked_steps, masked_cells, masked_nested_models, mask_behind_strides),
    )
    return {each.__name__: each for each in found}


def main() -> None:
    """One `.keras` and one `.npz` for each, some also as `.h5`."""
    keras = quiet_keras()
    for number, (name, function) in enumerate(functional(keras).items()):
        generator = np.random.default_rng(number)
        given = keras.layers.Input((None, FEATURES))
        model = keras.Model(given, function(given), name=name)
        set_random_weights(model, generator)
        inputs = generator.standard_normal((SEQUENCES, TIMESTEPS, FEATURES)).astype(np.float32)
        share = generator.random((SEQUENCES, TIMESTEPS))
        inputs[share < 0.2], inputs[share > 0.8] = 0, 1
        lengths = range(WINDOWED.get(name, 1), TIMESTEPS + 1)
        prefixes = of_prefixes(model, lengths, lambda length, inputs=inputs: inputs[:, :length])
        save(GRAPHS, model, ALSO_HDF5, inputs=inputs, prefixes=prefixes)


if __name__ == "__main__":
    main()
