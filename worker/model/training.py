"""The reference architecture, its training, and Keras' own predictions.

Only this file, keras_2.py and buffered.py use Keras.
`python -m worker.model.training MODEL SAMPLES.npy PREDICTIONS.npy keras|tf_keras [ARCHITECTURE.json]` predicts in a
process of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.core.types import Float32Array
from worker.model.files.keras_hdf5 import architecture_of_weights
from worker.model.inputs import ModelInput, inputs_of, split
from worker.model.keras_2 import load_by_keras_2
from worker.model.tensorflow_import import importing_tensorflow


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
    with importing_tensorflow():
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


KERAS_2, KERAS_3 = "tf_keras", "keras"
"""The packages by which `predict` loads a file."""


def predict(
    path: Path, features: Float32Array, package: str = KERAS_3, architecture: Path | None = None
) -> Float32Array:
    """`model.predict` of whole sequences (N, T, F) → (N, T, K), by Keras itself; several inputs are split as samples
    are, several outputs follow one another. `architecture`: of a file that holds only weights, by default beside it.

    One output per sequence is step T's; of one per step the last is step T's, the one before it that of step T - 1, and
    so on. NaN where Keras has no output. Imports TensorFlow.
    """
    model = (load_by_keras_2 if package == KERAS_2 else _load_by_keras_3)(path, architecture)
    inputs, timesteps = keras_model_inputs(path, model)
    rows, *_ = model.inputs[0].shape
    if rows is None:
        return _predicted(model, features, inputs, None)
    # A file that fixes the size of a batch takes no other.
    found = []
    for start in range(0, len(features), rows):
        batch = features[start : start + rows]
        padded = np.concatenate([batch, np.repeat(batch[-1:], rows - len(batch), axis=0)])
        _reset_states(model)
        at = [padded] if timesteps != 1 else [padded[:, step : step + 1] for step in range(padded.shape[1])]
        found.append(np.concatenate([_predicted(model, each, inputs, rows) for each in at], axis=1)[: len(batch)])
    return np.concatenate(found)


def _predicted(model: Any, features: Float32Array, inputs: Sequence[ModelInput], rows: int | None) -> Float32Array:
    found = model.predict(keras_inputs(model, split(features, inputs)), batch_size=rows, verbose=0)
    if isinstance(found, dict):
        found = [found[key] for key in sorted(found)]
    outputs = found if isinstance(found, list | tuple) else [found]
    return np.concatenate([by_step(np.asarray(each, np.float32), features.shape[1]) for each in outputs], axis=-1)


def _reset_states(layer: Any) -> None:
    """Of a layer, or of all in a model: stateful ones begin anew."""
    for inner in getattr(layer, "layers", ()):
        _reset_states(inner)
    if getattr(layer, "stateful", False) and not hasattr(layer, "layers"):
        (layer.reset_state if hasattr(layer, "reset_state") else layer.reset_states)()


def _load_by_keras_3(path: Path, architecture: Path | None) -> Any:
    with importing_tensorflow():
        import keras

    configuration = architecture_of_weights(path, architecture)
    if configuration is None:
        return keras.models.load_model(path, compile=False)
    # Safe mode, the default of both, executes nothing of either file.
    model = keras.models.model_from_json(json.dumps(configuration))
    model.load_weights(path)
    return model


def by_step(output: Float32Array, timesteps: int) -> Float32Array:
    """What Keras predicts, (N, K) of the sequence or (N, T', K) of its last T' steps → (N, T, K), NaN elsewhere."""
    found = output[:, None] if output.ndim == 2 else output
    filled = np.full((len(found), timesteps, found.shape[2]), np.nan, np.float32)
    filled[:, timesteps - found.shape[1] :] = found
    return filled


def keras_model_inputs(path: Path, model: Any) -> tuple[tuple[ModelInput, ...], int | None]:
    """`inputs_of` a Keras model, in its order."""
    shapes = [(each.name, tuple(each.shape)) for each in model.inputs]
    ids = {}
    for number in range(len(shapes)):
        takers = list(_takers(model, number))
        if takers and all(type(each).__name__ == "Embedding" for each in takers):
            ids[number] = min(each.input_dim for each in takers)
    return inputs_of(str(path), shapes, ids)


def _takers(model: Any, number: int) -> Iterator[Any]:
    """The layers that take a model's input, also those of models in it; not what makes a mask of it."""
    functional = getattr(model, "_functional", None) or model  # what a Sequential model is inside
    given = functional.inputs[number]
    # Keras 2 calls the two `layers` and `keras_inputs`; its `input_tensors` are an input layer's own.
    for operation in getattr(functional, "operations", functional.layers):
        for node in operation._inbound_nodes:
            tensors = node.keras_inputs if hasattr(node, "keras_inputs") else node.input_tensors
            for at, tensor in enumerate(tensors):
                if tensor is given and hasattr(operation, "inputs"):
                    yield from _takers(operation, at)
                elif tensor is given and type(operation).__name__ != "NotEqual":
                    yield operation


def keras_inputs(model: Any, parts: Sequence[Any]) -> Any:
    """What each input takes → what the model is called with: an array, a list or a dictionary."""
    import keras

    return parts[0] if len(parts) == 1 else keras.tree.pack_sequence_as(model.input, list(parts))


if __name__ == "__main__":
    model, samples, predictions, package, *architecture = sys.argv[1:]
    beside = Path(architecture[0]) if architecture else None
    np.save(predictions, predict(Path(model), np.load(samples), package, beside))
