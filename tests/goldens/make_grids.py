"""Writes golden files of models whose steps are grids, as make_graphs.py does; `python -m tests.goldens.make_grids`.

`inputs` are samples: the numbers of a step in C order, as `Flatten` has them.
"""

from __future__ import annotations

import numpy as np

from tests.goldens.writing import GRAPHS, SEQUENCES, of_prefixes, quiet_keras, save, set_random_weights, sigmoid_head

TIMESTEPS = 6
ALSO_HDF5 = ("grids_of_one_dimension", "grids_of_two_dimensions")


def models(keras):
    """Models, each with its number of steps where that is fixed."""
    lay = keras.layers
    every, head = {"return_sequences": True}, sigmoid_head(keras)

    def grids_of_one_dimension(steps=None):
        x = lay.Input((steps, 5, 2))
        y = lay.ConvLSTM1D(3, 3, padding="same", strides=2, **every)(x)
        y = lay.Softmax()(lay.LayerNormalization()(lay.BatchNormalization()(y)))
        last = lay.ConvLSTM1D(2, 2, activation="softsign", use_bias=False)(lay.Dropout(0.2)(y))
        pooled = lay.GlobalAveragePooling1D()(lay.LeakyReLU()(last))
        return x, head(lay.Flatten()(last), pooled, lay.GRU(2)(lay.TimeDistributed(lay.Flatten())(y)))

    def grids_of_two_dimensions(steps=None):
        x = lay.Input((steps, 4, 5, 2))
        y = lay.ConvLSTM2D(3, (2, 3), recurrent_activation="hard_sigmoid", dilation_rate=(2, 1), **every)(x)
        y = lay.Dense(2, activation="tanh")(lay.BatchNormalization()(y))
        last = lay.ConvLSTM2D(2, 2, strides=(1, 2), padding="same")(y)
        pooled = lay.GlobalAveragePooling2D()(lay.LayerNormalization()(last))
        other = lay.TimeDistributed(lay.GlobalAveragePooling2D())(lay.TimeDistributed(lay.LayerNormalization())(y))
        return x, head(lay.Reshape((-1,))(last), pooled, lay.LSTM(2)(other))

    def grids_flattened(steps=TIMESTEPS):
        x = lay.Input((steps, 3, 2, 1))
        return x, head(lay.Flatten()(lay.ConvLSTM2D(2, (3, 2), padding="same", dilation_rate=2, **every)(x)))

    def grids_and_features(steps=None):
        a, b, c = lay.Input((steps, 2), name="signal"), lay.Input((steps, 4, 1), name="spectrum"), lay.Input((3,))
        rows = lay.TimeDistributed(lay.Flatten())(lay.ConvLSTM1D(2, 3, padding="same", dilation_rate=2, **every)(b))
        last = lay.Flatten()(lay.ConvLSTM1D(1, 2, strides=2)(b))
        return [c, b, a], head(lay.GRU(3)(lay.Concatenate()([a, rows])), last, c)

    for function in (grids_of_one_dimension, grids_of_two_dimensions, grids_flattened, grids_and_features):
        name = function.__name__
        inputs, output = function()
        yield keras.Model(inputs, output, name=name), TIMESTEPS if name == "grids_flattened" else None


def main() -> None:
    """One `.keras` and one `.npz` for each, some also as `.h5`."""
    for number, (model, fixed) in enumerate(models(quiet_keras())):
        generator = np.random.default_rng(number)
        set_random_weights(model, generator)
        parts = []
        for each in model.inputs:
            # A static one changes from step to step; what Keras is given is that of the last step.
            shape = (SEQUENCES, TIMESTEPS, *each.shape[2 if len(each.shape) > 2 else 1 :])
            parts.append(generator.standard_normal(shape).astype(np.float32))

        def given(length, model=model, parts=parts):
            found = [
                part[:, :length] if len(each.shape) > 2 else part[:, length - 1]
                for part, each in zip(parts, model.inputs, strict=True)
            ]
            return found if len(found) > 1 else found[0]

        prefixes = of_prefixes(model, range(fixed or 1, TIMESTEPS + 1), given)
        rows = [part.reshape(SEQUENCES, TIMESTEPS, -1) for part in parts]
        save(GRAPHS, model, ALSO_HDF5, inputs=np.concatenate(rows, axis=-1), prefixes=prefixes)


if __name__ == "__main__":
    main()
