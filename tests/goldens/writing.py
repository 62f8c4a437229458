"""What the programs that write golden files share: random weights, what Keras predicts, and the files themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

GRAPHS = Path(__file__).parent / "graphs"
FEATURES, TIMESTEPS, SEQUENCES = 3, 12, 4


def quiet_keras() -> Any:
    """The module, without TensorFlow's notes."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    return keras


def sigmoid_head(keras: Any) -> Callable[..., Any]:
    """A function of one value or of several, which it joins."""
    lay = keras.layers

    def head(*parts: Any) -> Any:
        return lay.Dense(1, activation="sigmoid")(lay.Concatenate()(parts) if len(parts) > 1 else parts[0])

    return head


def set_random_weights(model: Any, generator: np.random.Generator) -> None:
    """Far from what they are initialised to, which does not forgive a bias or gate in the wrong place."""
    model.set_weights([_weight(generator, variable) for variable in model.weights])


def _weight(generator: np.random.Generator, variable: Any) -> np.ndarray:
    """Variances are positive."""
    values = generator.normal(0, 0.5, variable.shape).astype(np.float32)
    return np.abs(values) + np.float32(0.1) if "variance" in variable.path else values


def outputs(model: Any, given: Any) -> list[np.ndarray]:
    """What Keras predicts, output by output."""
    found = model(given, training=False)
    return [np.asarray(each) for each in (found if isinstance(found, list) else [found])]


def of_prefixes(model: Any, lengths: Iterable[int], given: Callable[[int], Any]) -> np.ndarray:
    """What a model of one number predicts for the first steps, (N, T, 1): `given` are the inputs of so many steps.

    NaN where the prefix has none of the `lengths`; the last one is T.
    """
    known = {length: outputs(model, given(length))[0] for length in lengths}
    prefixes = np.full((SEQUENCES, max(known), 1), np.nan, np.float32)
    for length, predicted in known.items():
        prefixes[:, length - 1] = predicted
    return prefixes


def save(folder: Path, model: Any, also_hdf5: Iterable[str], **arrays: np.ndarray) -> None:
    """`NAME.keras` with `NAME.npz` of the arrays, and `NAME.h5` where the name is among `also_hdf5`."""
    folder.mkdir(exist_ok=True)
    model.save(folder / f"{model.name}.keras")
    if model.name in also_hdf5:
        model.save(folder / f"{model.name}.h5")
    np.savez_compressed(folder / f"{model.name}.npz", **arrays)
