"""Writes golden files of models with several inputs, as make_graphs.py does; `python -m tests.goldens.make_inputs`.

`inputs` are samples, the inputs' features one after the other. Static ones change from step to step there: what Keras
predicts for a prefix is with those of its last step.
"""

from __future__ import annotations

import numpy as np

from tests.goldens.writing import (
    GRAPHS,
    SEQUENCES,
    TIMESTEPS,
    of_prefixes,
    quiet_keras,
    save,
    set_random_weights,
    sigmoid_head,
)

ALSO_HDF5 = ("static_input", "only_ids", "ids_and_features")
IDS = 6
REPEATED = "repeated_static_input"
"""Its static values are the same at every step, as the sequence has them."""


def models(keras):
    """Models of the inputs that each function gives, in the order of its list, and of its output."""
    lay = keras.layers
    every, head = {"return_sequences": True}, sigmoid_head(keras)

    def two_sequences(steps=None):
        a, b = lay.Input((steps, 2), name="left"), lay.Input((steps, 3), name="right")
        joined = lay.Concatenate()([lay.LSTM(3, **every)(b), a])
        return [b, a], head(lay.GRU(2)(joined), lay.GlobalAveragePooling1D()(a))

    def static_input(steps=None):
        a, b = lay.Input((2,), name="age"), lay.Input((steps, 3), name="signal")
        return [a, b], head(lay.LSTM(3)(b), lay.Dense(2, activation="tanh")(a), a)

    def static_and_flatten(steps=TIMESTEPS):
        a, b = lay.Input((steps, 2), name="signal"), lay.Input((2,), name="age")
        flat = lay.Flatten()(lay.LSTM(2, **every)(a))
        return [a, b], head(lay.Concatenate()([flat, b]), lay.Dense(2, activation="relu")(flat), b)

    def repeated_static_input(steps=TIMESTEPS):
        a, b = lay.Input((2,), name="age"), lay.Input((steps, 2), name="signal")
        repeated = lay.RepeatVector(steps)(lay.Dense(2, activation="relu")(a))
        return [a, b], head(lay.GRU(3)(lay.Concatenate()([b, repeated])))

    def named_inputs(steps=None):
        a, b = lay.Input((steps, 1), name="one"), lay.Input((3,), name="other")
        return {"z": a, "b": b}, head(lay.LSTM(2)(a), b)

    def masked_inputs(steps=None):
        a, b = lay.Input((steps, 2), name="left"), lay.Input((steps, 2), name="right")
        parts = [lay.Dense(3)(lay.Masking(0.0)(a)), lay.Dense(3)(lay.Masking(1.0)(b))]
        return [a, b], head(lay.GRU(3)(lay.Add()(parts)), lay.LSTM(2)(lay.Multiply()(parts)))

    def only_ids(steps=None):
        a = lay.Input((steps,), name="ids")
        return a, head(lay.LSTM(3)(lay.Embedding(IDS, 4)(a)))

    def masked_ids(steps=None):
        a = lay.Input((steps,), dtype="int32", name="ids")
        rows = lay.Embedding(IDS, 4, mask_zero=True)(a)
        other = lay.Embedding(IDS, 3)(a)
        pooled = lay.GlobalAveragePooling1D()(lay.GRU(3, zero_output_for_mask=True, **every)(rows))
        return a, head(lay.LSTM(3)(lay.Dense(3)(rows)), pooled, lay.GRU(2)(lay.Concatenate()([rows, other])))

    def ids_and_features(steps=TIMESTEPS):
        a, b = lay.Input((steps,), dtype="int64", name="ids"), lay.Input((steps, 2), name="signal")
        c, shared = lay.Input((steps,), name="ids_too"), lay.Embedding(IDS, 3)
        joined = lay.Concatenate()([lay.Add()([shared(a), shared(c)]), lay.Masking(0.0)(b)])
        return [a, b, c], head(lay.Flatten()(lay.LSTM(2, **every)(joined)))

    def nested_ids(steps=None):
        a, b = lay.Input((steps,), name="ids"), lay.Input((2,), name="age")
        given = lay.Input((steps,))
        inner = keras.Model(given, lay.GRU(3, **every)(lay.Embedding(IDS, 3, mask_zero=True)(given)), name="inner")
        return [b, a], head(lay.LSTM(2)(inner(a)), b)

    found = (
        *(two_sequences, static_input, static_and_flatten, repeated_static_input, named_inputs, masked_inputs),
        *(only_ids, masked_ids, ids_and_features, nested_ids),
    )
    for function in found:
        inputs, output = function()
        yield keras.Model(inputs, output, name=function.__name__)


def main() -> None:
    """One `.keras` and one `.npz` for each, some also as `.h5`."""
    keras = quiet_keras()
    for number, model in enumerate(models(keras)):
        generator = np.random.default_rng(number)
        set_random_weights(model, generator)
        parts, kinds = [], []
        for each in model.inputs:
            if each.name.startswith("ids"):
                parts.append(generator.integers(0, IDS, (SEQUENCES, TIMESTEPS, 1)).astype(np.float32))
                kinds.append("ids")
                continue
            part = generator.standard_normal((SEQUENCES, TIMESTEPS, each.shape[-1])).astype(np.float32)
            share = generator.random((SEQUENCES, TIMESTEPS))
            part[share < 0.2], part[share > 0.8] = 0, 1
            parts.append(np.repeat(part[:, :1], TIMESTEPS, axis=1) if model.name == REPEATED and not kinds else part)
            kinds.append("static" if len(each.shape) == 2 else "sequence")

        def given(length, model=model, parts=parts, kinds=kinds):
            taken = {
                "ids": lambda part: part[:, :length, 0],
                "static": lambda part: part[:, length - 1],
                "sequence": lambda part: part[:, :length],
            }
            found = [taken[kind](part) for part, kind in zip(parts, kinds, strict=True)]
            return keras.tree.pack_sequence_as(model.input, found)

        fixed = max((each.shape[1] or 0 for each in model.inputs if len(each.shape) == 3), default=0)
        prefixes = of_prefixes(model, range(fixed or 1, TIMESTEPS + 1), given)
        save(GRAPHS, model, ALSO_HDF5, inputs=np.concatenate(parts, axis=-1), prefixes=prefixes)


if __name__ == "__main__":
    main()
