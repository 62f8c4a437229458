"""Models that cannot be stepped: the raw samples of the sequence are the state, and Keras runs the model on them.

For those who say so by `model.mode = "buffer"`. Costs T · F floats a stream and a whole evaluation where a number is
published: at step T, or, where the file does not fix T, after every sample, on the samples so far.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from worker.core.types import Float32Array
from worker.errors import ModelNotStreamable
from worker.model.activations import activation_name
from worker.model.files.reading import open_model_file
from worker.model.graph import stated_shapes
from worker.model.heads import HEADS
from worker.model.inputs import ModelInput, inputs_of, only_ids, split
from worker.model.precision import FLOAT32, precision_of
from worker.model.program import Node, StepProgram
from worker.model.stateful import is_stateful
from worker.model.tensorflow_import import importing_tensorflow
from worker.model.training import keras_inputs, keras_model_inputs

ROWS_MAX = 256
"""Sequences of one evaluation; bounds memory."""
Evaluate = Callable[[Float32Array], Float32Array]
"""(B, t, F) → logits (B, K)."""
BUFFER_CLASS = "buffer"
"""Of the program's only node."""


def load_buffered(path: Path, timesteps: int | None = None) -> StepProgram:
    """The model as a program of one node. `timesteps` where the file does not fix them: then they bound the buffer.

    Imports TensorFlow. Raises ModelNotStreamable for a file that the reader or Keras refuses, for a model without
    bounds, and for one that does not end in one sigmoid or softmax of the whole sequence.
    """
    with open_model_file(path) as file:
        configuration, stated = file.configuration, stated_shapes(file)
    if is_stateful(configuration):
        raise ModelNotStreamable(
            f"{path} is stateful, and buffer mode runs whole sequences",
            "build the model without stateful, give it these weights, and save it with model.save('model.keras')",
        )
    # Before Keras takes its time, which reads some old files with other shapes; what inputs of ids are, it must tell.
    if stated and all(shape is not None for _, shape in stated) and "Embedding" not in json.dumps(configuration):
        inputs_of(str(path), stated, {})
    model = _loaded(path)
    inputs, fixed = keras_model_inputs(path, model)
    activation = _without_activation(path, model)
    length = fixed or timesteps
    if length is None:
        raise ModelNotStreamable(
            f"{path} does not fix the number of steps", "set sequence.length, or --timesteps of `lstm-worker check`"
        )
    weights = [np.asarray(each, np.float32) for each in model.get_weights()]
    return buffered_program(
        name=str(configuration.get("config", {}).get("name", path.stem)),
        inputs=inputs,
        timesteps=int(length),
        every_prefix=fixed is None,
        outputs=int(model.output_shape[-1]),
        activation=activation,
        fingerprint=_fingerprint(configuration, weights, int(length)),
        evaluate=_evaluation(path, model, inputs, fixed),
        keras_precision=precision_of(configuration),
    )


def buffered_program(
    *,
    name: str,
    inputs: tuple[ModelInput, ...],
    timesteps: int,
    every_prefix: bool,
    outputs: int,
    activation: str,
    fingerprint: str,
    evaluate: Evaluate,
    keras_precision: str = FLOAT32,
) -> StepProgram:
    """State: the samples so far, (T, F) floats. Logits are 0 where nothing is evaluated."""
    features = sum(each.width for each in inputs)
    columns = np.arange(features)

    def logits_of(samples: Float32Array) -> Float32Array:
        parts = [evaluate(samples[start : start + ROWS_MAX]) for start in range(0, len(samples), ROWS_MAX)]
        return np.concatenate(parts)

    def step(xp: Any, x: Any, state: Any, steps: Any) -> Any:
        del xp
        state = np.array(state)
        places = np.minimum(steps, timesteps) - 1
        state[np.arange(len(x))[:, None], (places * features)[:, None] + columns] = x
        logits = np.zeros((len(x), outputs), np.float32)
        for length in np.unique(steps).tolist() if every_prefix else [timesteps]:
            due = np.flatnonzero(steps == length)
            if len(due):
                known = min(length, timesteps)
                logits[due] = logits_of(state[due, : known * features].reshape(-1, known, features))
        return logits, state

    def whole(x: Any) -> Any:
        logits = np.zeros((*x.shape[:2], outputs))
        for length in range(1, x.shape[1] + 1) if every_prefix else [timesteps]:
            if length <= x.shape[1]:
                logits[:, length - 1] = logits_of(np.asarray(x[:, :length], np.float32))
        return logits

    exact = "every step" if every_prefix else f"step {timesteps}"
    kind = "last" if every_prefix else "end"
    node = Node(name, BUFFER_CLASS, kind, outputs, timesteps * features, step, whole, exact)
    return StepProgram(
        name=name,
        features=features,
        inputs=inputs,
        timesteps=timesteps,
        nodes=(node,),
        activations=[activation],
        exactness="prefix" if every_prefix else "end",
        fingerprint=fingerprint,
        computed_from=1 if every_prefix else timesteps,
        keras_precision=keras_precision,
    )


def _loaded(path: Path) -> Any:
    try:
        with importing_tensorflow():
            import keras
    except ModuleNotFoundError as error:
        raise ModelNotStreamable("buffer mode runs the model by Keras, which is not installed", "install it") from error
    try:
        # Safe mode executes nothing of the file: no Lambda, no class that is not Keras' own.
        return keras.models.load_model(path, compile=False, safe_mode=True)
    # What Keras raises, by generation and layer, for a file that it does not take; anything else is a bug.
    except (ValueError, TypeError, KeyError, OSError, NotImplementedError) as error:
        raise ModelNotStreamable(
            f"Keras {keras.__version__} does not load {path}: {_reason(error)}",
            "build the model in this Keras, give it the weights, and save it with model.save('model.keras')",
        ) from error


def _reason(error: Exception) -> str:
    """The first line, without the nodes of a traced function that TensorFlow puts in front."""
    lines = re.sub(r"{{.*?}} ?", "", str(error)).strip().splitlines()
    return lines[0][:200].removesuffix(".") if lines else type(error).__name__


def _without_activation(path: Path, model: Any) -> str:
    """Turn the head's activation off, so that the model gives logits; returns its name."""
    import keras

    shapes = model.output_shape
    if not isinstance(shapes, tuple):
        raise ModelNotStreamable(f"{path} has {len(shapes)} outputs", "buffer mode serves models of one output")
    if len(shapes) != 2:
        raise ModelNotStreamable(
            f"{path} gives one output per step, of which each may depend on later samples",
            "buffer mode serves models of one output per sequence; causal ones are stepped: leave out --mode buffer",
        )
    head = model.layers[-1]
    name = activation_name(keras.activations.serialize(getattr(head, "activation", keras.activations.linear)))
    if name not in HEADS or not isinstance(head, keras.layers.Dense | keras.layers.Activation):
        raise ModelNotStreamable(
            f"{path} ends in {type(head).__name__} {head.name!r} with activation {name!r}",
            "buffer mode serves models that end in a Dense or Activation layer with sigmoid or softmax",
        )
    if _calls(model, head.name) > 1:
        raise ModelNotStreamable(
            f"{path} calls its last layer {head.name!r} more than once",
            "buffer mode serves models whose head is used once",
        )
    head.activation = keras.activations.linear
    return str(name)


def _calls(model: Any, name: str) -> int:
    """Of the layer of a functional model; in a Sequential each is called once."""
    layers = model.get_config().get("layers", [])
    return max((len(each.get("inbound_nodes", ())) for each in layers if each["config"].get("name") == name), default=1)


def _evaluation(path: Path, model: Any, inputs: tuple[ModelInput, ...], fixed: int | None) -> Evaluate:
    """It raises ModelNotStreamable where Keras cannot run a model of any length on so few samples, or on any number."""
    import tensorflow as tf

    shapes = [
        [None, each.width] if each.is_static else [None, fixed, *((each.width,) if each.shape is None else each.shape)]
        for each in inputs
    ]
    traced = tf.function(
        lambda *parts: model(keras_inputs(model, parts), training=False),
        input_signature=[tf.TensorSpec(shape, tf.float32) for shape in shapes],
    )

    def evaluate(samples: Float32Array) -> Float32Array:
        known = only_ids(samples, inputs)
        given = np.where(known[:, None, None], samples, np.float32(0))
        try:
            answers = traced(*[tf.constant(part, tf.float32) for part in split(given, inputs)])
        except (ValueError, TypeError, tf.errors.InvalidArgumentError, tf.errors.AbortedError) as error:
            raise ModelNotStreamable(
                f"Keras does not run {path} on {samples.shape[1]} sample(s): {_reason(error)}",
                "build the model for a fixed number of steps, keras.Input((T, F)), and give it these weights"
                if fixed is None
                else "make it a model that model.predict runs in this Keras",
            ) from error
        # What is no id makes Keras fail for the whole batch.
        return np.where(known[:, None], np.asarray(answers, np.float32), np.float32(np.nan))

    return evaluate


def _fingerprint(configuration: Any, weights: list[Float32Array], timesteps: int) -> str:
    """sha256; another one than that of the stepped model, whose state rows hold something else."""
    parts = ["buffer", configuration, timesteps]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    for weight in weights:
        digest.update(str(weight.shape).encode())
        digest.update(np.ascontiguousarray(weight, "<f4").tobytes())
    return digest.hexdigest()
