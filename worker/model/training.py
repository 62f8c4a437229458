"""The reference architecture, its training, and Keras' own predictions; the only file that uses Keras.

`python -m worker.model.training MODEL SAMPLES.npy PREDICTIONS.npy` predicts in a process of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from worker.core.types import Float32Array


def train_reference(
    features: Float32Array,
    positive: npt.NDArray[np.bool_],
    path: Path,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    on_epoch: Callable[[int], None],
) -> None:
    """Train LSTM 32 → LeakyReLU → Dropout → LSTM 16 → Dropout → LeakyReLU → Flatten → Dense 1 and save it.

    features (N, T, F), positive (N,): the label of each sequence. Adam on binary cross-entropy. Equal arguments on
    one machine give equal weights. `on_epoch` is called with 1 after each epoch. Imports TensorFlow.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # start-up notes about CPU instructions, not for the user
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input(features.shape[1:]),
            layers.LSTM(32, return_sequences=True),
            layers.LeakyReLU(),
            layers.Dropout(0.2),
            layers.LSTM(16, return_sequences=True),
            layers.Dropout(0.2),
            layers.LeakyReLU(),
            layers.Flatten(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer="adam", loss="binary_crossentropy")
    progress = keras.callbacks.LambdaCallback(on_epoch_end=lambda _epoch, _logs: on_epoch(1))
    labels = positive.astype(np.float32)
    model.fit(features, labels, epochs=epochs, batch_size=batch_size, verbose=0, callbacks=[progress])
    model.save(path)


def predict(path: Path, features: Float32Array) -> Float32Array:
    """`model.predict` of whole sequences (N, T, F) → (N, K), by Keras itself. Imports TensorFlow."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    model = keras.models.load_model(path, compile=False)
    return np.asarray(model.predict(features, verbose=0), np.float32)


if __name__ == "__main__":
    np.save(sys.argv[3], predict(Path(sys.argv[1]), np.load(sys.argv[2])))
