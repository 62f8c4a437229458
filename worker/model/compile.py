"""A file's configuration to a step program, by interpreting each layer on the kind of value that reaches it.

Four kinds: `sequence` (a value at each step), `last` (a recurrent layer's last output; stepped, it is the output on the
prefix), `flat` (a sequence flattened, one slice a step) and `end` (what follows a sum over all steps: exact at step T).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from worker.errors import ModelNotStreamable
from worker.model.activations import activation_name
from worker.model.files.reading import ModelFile
from worker.model.files.weights import WAY_OUT, Array
from worker.model.program import Node, StepProgram
from worker.model.rules import dense, elementwise, recurrent
from worker.model.rules.context import Layer, is_whole, shown

Entry = tuple[str, dict[str, Any]]
"""A layer's class name and configuration."""

RULES: dict[str, Callable[[Layer], Node]] = {
    "LSTM": recurrent.lstm,
    "GRU": recurrent.gru,
    "SimpleRNN": recurrent.simple_rnn,
    "Dense": dense.dense,
    "Activation": elementwise.activation_layer,
    "Softmax": elementwise.softmax_layer,
    "LeakyReLU": elementwise.leaky_relu,
    "ReLU": elementwise.relu,
    "ELU": elementwise.elu,
    "Rescaling": elementwise.rescaling,
}
RULES |= dict.fromkeys(
    (
        "Dropout",
        "SpatialDropout1D",
        "GaussianDropout",
        "GaussianNoise",
        "AlphaDropout",
        "ActivityRegularization",
        "Identity",
    ),
    elementwise.identity,
)
REASONS = {
    "Bidirectional": "the backward half needs the last step first",
    "Conv1D": "convolutions are not supported yet",
    "GlobalAveragePooling1D": "pooling over time is not supported yet",
    "GlobalMaxPooling1D": "pooling over time is not supported yet",
    "MultiHeadAttention": "attention needs the whole window",
    "Attention": "attention needs the whole window",
    "Lambda": "it holds code, and nothing in a file is executed",
    "RepeatVector": "a decoder starts after the last step",
    "Masking": "masked steps are not supported yet",
    "CuDNNLSTM": "its weights are laid out for one graphics library",
    "CuDNNGRU": "its weights are laid out for one graphics library",
}
LAYERS_MAX = 1000
NAME_CHARACTERS_MAX = 200
FEATURES_MAX = 1 << 14
TIMESTEPS_MAX = 1 << 20
STATE_FLOATS_MAX = 1 << 20
"""Of one stream: 4 MiB."""


def compile_model(file: ModelFile, timesteps: int | None = None) -> StepProgram:
    """Raises ModelNotStreamable naming the layer, the reason and the way out."""
    entries = _sequential_layers(file)
    features, given = _input_shape(file, entries)
    steps = given or timesteps
    head, activation = _head(entries)
    width, kind = features, "sequence"
    nodes: list[Node] = []
    used: list[Array] = []
    count: Counter[str] = Counter()
    for number, (class_name, config) in enumerate(entries):
        name = config["name"]
        if class_name == "InputLayer":
            continue
        layer = Layer(name, class_name, dict(config), [], width, kind, steps, file.keras_major)
        if class_name == "Flatten":
            kind = _flattened(layer)
            continue
        if class_name not in RULES:
            way_out = f"layers that can be stepped: {', '.join(['Flatten', *RULES])}"
            raise layer.refused(REASONS.get(class_name, "this class of layer is not known"), way_out)
        layer.weights = file.weights(name, class_name, count[class_name])
        count[class_name] += 1
        if number == head:
            # Logits and outputs are published apart, so the program stops before the head's activation.
            if class_name != "Dense":
                continue
            layer.config["activation"] = "linear"
        node = RULES[class_name](layer)
        nodes.append(node)
        used.extend(layer.weights)
        width, kind = node.width, node.kind
    _check_end(file, kind)
    program = StepProgram(
        name=str(_inner(file).get("name") or "model"),
        features=features,
        timesteps=steps,
        nodes=tuple(nodes),
        activation=activation,
        exactness="end" if kind == "end" else "prefix",
        fingerprint=_fingerprint(entries, used, steps, file.keras_major),
    )
    if program.state_size > STATE_FLOATS_MAX:
        raise ModelNotStreamable(
            f"{file.path} needs {program.state_size} floats of state for each stream, {STATE_FLOATS_MAX} are allowed",
            "train it with fewer units",
        )
    return program


def _flattened(layer: Layer) -> str:
    if layer.config.get("data_format") == "channels_first":
        raise layer.refused("it flattens channels first", "build the model with data_format='channels_last'")
    return "flat" if layer.kind == "sequence" else layer.kind


def _check_end(file: ModelFile, kind: str) -> None:
    if kind == "flat":
        raise ModelNotStreamable(f"{file.path} ends with Flatten", "a classifier ends with Dense")
    if kind == "sequence":
        raise ModelNotStreamable(
            f"{file.path} gives one output per step, not one per sequence",
            "end it with return_sequences=False or with Flatten and Dense",
        )


def _head(entries: list[Entry]) -> tuple[int, str]:
    """The number of the layer whose activation turns logits into outputs, and that activation; else -1 and linear."""
    ignored = ("Dropout", "Identity")
    last = max((i for i, (class_name, _) in enumerate(entries) if class_name not in ignored), default=0)
    class_name, config = entries[last]
    if class_name == "Softmax" and config.get("axis", -1) in (-1, [-1]):
        return last, "softmax"
    name = activation_name(config.get("activation"))
    if class_name in ("Dense", "Activation") and name in ("sigmoid", "softmax"):
        return last, str(name)
    return -1, "linear"


def _inner(file: ModelFile) -> dict[str, Any]:
    """The configuration inside; Keras before 2.2.3 stored the bare list of layers."""
    config = file.configuration.get("config")
    return config if isinstance(config, dict) else {"layers": config}


def _sequential_layers(file: ModelFile) -> list[Entry]:
    """(class name, configuration with a name) of each layer."""
    class_name = file.configuration.get("class_name")
    if class_name != "Sequential":
        raise ModelNotStreamable(
            f"{file.path} is a model of class {shown(class_name)}, not Sequential",
            "build it as keras.Sequential; functional graphs are not supported yet",
        )
    layers = _inner(file).get("layers")
    if not isinstance(layers, list) or not 1 <= len(layers) <= LAYERS_MAX:
        raise ModelNotStreamable(f"{file.path} has no list of 1 to {LAYERS_MAX} layers", WAY_OUT)
    return [_entry(file, number, layer) for number, layer in enumerate(layers)]


def _entry(file: ModelFile, number: int, layer: Any) -> Entry:
    class_name = layer.get("class_name") if isinstance(layer, dict) else None
    config = layer.get("config") if isinstance(layer, dict) else None
    if not isinstance(class_name, str) or not class_name.isidentifier() or not isinstance(config, dict):
        raise ModelNotStreamable(f"{file.path}: layer {number} has no class or no configuration", WAY_OUT)
    name = config.get("name", class_name)
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_CHARACTERS_MAX or len(class_name) > NAME_CHARACTERS_MAX:
        raise ModelNotStreamable(f"{file.path}: layer {number} has the name {shown(name)}", WAY_OUT)
    return class_name, {**config, "name": name}


def _input_shape(file: ModelFile, entries: list[Entry]) -> tuple[int, int | None]:
    config = entries[0][1]
    shape = config.get("batch_shape") or config.get("batch_input_shape")
    build = file.configuration.get("build_config")
    if shape is None and isinstance(build, dict):
        shape = build.get("input_shape")
    if not isinstance(shape, list) or len(shape) != 3:
        raise ModelNotStreamable(
            f"{file.path} takes input of {len(shape) if isinstance(shape, list) else 'unknown'} dimensions, "
            "not (batch, timesteps, features)",
            "serve a sequence model, saved after it was built",
        )
    _, steps, features = shape
    if not is_whole(features, FEATURES_MAX) or not (steps is None or is_whole(steps, TIMESTEPS_MAX)):
        raise ModelNotStreamable(
            f"{file.path} takes {shown(steps)} timesteps of {shown(features)} features",
            f"serve a model of 1 to {FEATURES_MAX} features and at most {TIMESTEPS_MAX} timesteps",
        )
    return features, steps


def _fingerprint(entries: list[Entry], weights: list[Array], steps: int | None, keras_major: int) -> str:
    """sha256 of what the numbers depend on: layer configurations in canonical form, steps, and weights."""
    layers = [
        {"class_name": class_name, "config": _essential(config)}
        for class_name, config in entries
        if class_name != "InputLayer"
    ]
    digest = hashlib.sha256(json.dumps([layers, steps, keras_major < 3], sort_keys=True).encode())
    for weight in weights:
        digest.update(str(weight.shape).encode())
        digest.update(np.ascontiguousarray(weight, "<f4").tobytes())
    return digest.hexdigest()


_IRRELEVANT = ("name", "trainable", "dtype", "batch_shape", "batch_input_shape", "build_config", "seed", "rate")


def _essential(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in config.items()
        if key not in _IRRELEVANT and not key.endswith(("_initializer", "_regularizer", "_constraint"))
    }
