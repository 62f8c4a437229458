"""Writes golden files that Keras computes in half precision; `python -m tests.goldens.make_precision`.

As make_goldens.py; the file is called after its dtype policy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.goldens.writing import FEATURES, SEQUENCES, TIMESTEPS, quiet_keras, save, set_random_weights

PRECISION = Path(__file__).parent / "precision"
POLICIES = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64")
ALSO_HDF5 = ("mixed_float16", "mixed_bfloat16", "float16", "float64")
"""Keras does not load its own HDF5 files with weights in bfloat16."""


def model(keras: Any, policy: str) -> Any:
    """Whose head computes in float32, as Keras recommends."""
    lay = keras.layers
    own = {"dtype": policy, "recurrent_initializer": "glorot_uniform"}
    layers = [
        lay.LSTM(8, return_sequences=True, **own),
        lay.TimeDistributed(lay.Dense(4, dtype=policy)),
        lay.GRU(8, **own),
    ]
    return keras.Sequential(
        [lay.Input((TIMESTEPS, FEATURES)), *layers, lay.Dense(1, activation="sigmoid")], name=policy
    )


def main() -> None:
    """One `.keras` and one `.npz` for each, some also as `.h5`."""
    keras = quiet_keras()
    generator = np.random.default_rng(27)
    for policy in POLICIES:
        keras.utils.set_random_seed(1)
        built = model(keras, policy)
        set_random_weights(built, generator)
        inputs = generator.standard_normal((SEQUENCES, TIMESTEPS, FEATURES)).astype(np.float32)
        predicted = np.asarray(built.predict(inputs, verbose=0), np.float32)
        save(PRECISION, built, ALSO_HDF5, inputs=inputs, outputs=predicted)


if __name__ == "__main__":
    main()
