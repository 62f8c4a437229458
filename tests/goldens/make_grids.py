"""Writes golden files of models whose steps are grids, as make_graphs.py does; `python -m tests.goldens.make_grids`.

`inputs` are samples: the numbers of a step in C order, as `Flatten` has them.
"""

from __future__ import annotations

import os

import numpy as np

from tests.goldens.make_graphs import FOLDER, SEQUENCES, answers, weight

TIMESTEPS = 6
ALSO_HDF5 = ("grids_of_one_dimension", "grids_of_two_dimensions")


def models(keras):
    """Name → model, number of steps where it is fixed."""
    lay = keras.layers
    every = {"return_sequences": True}

    def head(*parts):
        return lay.Dense(1, activation="sigmoid")(lay.Concatenate()(parts) if len(parts) > 1 else parts[0])

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
        yield name, keras.Model(inputs, output, name=name), TIMESTEPS if name == "grids_flattened" else None


def main() -> None:
    """One `.keras` and one `.npz` for each, some also as `.h5`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    for number, (name, model, fixed) in enumerate(models(keras)):
        generator = np.random.default_rng(number)
        model.set_weights([weight(generator, variable) for variable in model.weights])
        parts = []
        for each in model.inputs:
            # A static one changes from step to step; what Keras is given is that of the last step.
            shape = (SEQUENCES, TIMESTEPS, *each.shape[2 if len(each.shape) > 2 else 1 :])
            parts.append(generator.standard_normal(shape).astype(np.float32))
        prefixes = np.full((SEQUENCES, TIMESTEPS, 1), np.nan, np.float32)
        for step in range(fixed or 1, TIMESTEPS + 1):
            now = [
                part[:, :step] if len(each.shape) > 2 else part[:, step - 1]
                for part, each in zip(parts, model.inputs, strict=True)
            ]
            prefixes[:, step - 1] = answers(model, now if len(now) > 1 else now[0])
        model.save(FOLDER / f"{name}.keras")
        if name in ALSO_HDF5:
            model.save(FOLDER / f"{name}.h5")
        rows = [part.reshape(SEQUENCES, TIMESTEPS, -1) for part in parts]
        np.savez_compressed(FOLDER / f"{name}.npz", inputs=np.concatenate(rows, axis=-1), prefixes=prefixes)


if __name__ == "__main__":
    main()
