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
from worker.model.files.reading import LAYERS_MAX, Array, ModelFile
from worker.model.program import Node, StepProgram
from worker.model.rules import dense, elementwise, recurrent
from worker.model.rules.context import Layer

RULES: dict[str, Callable[[Layer], Node]] = {
    "LSTM": recurrent.lstm,
    "CuDNNLSTM": recurrent.lstm,
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
}
RNN_STATE_FLOATS_MAX = 1 << 20


def compile_model(file: ModelFile, timesteps: int | None = None) -> StepProgram:
    """Raises ModelNotStreamable naming the layer, the reason and the way out."""
    layers = _sequential_layers(file)
    features, given = _input_shape(file, layers)
    steps = given or timesteps
    width, kind = features, "sequence"
    nodes: list[Node] = []
    used: list[Array] = []
    count: Counter[str] = Counter()
    head, activation = _head(layers)
    for number, entry in enumerate(layers):
        class_name, config = str(entry.get("class_name")), dict(entry.get("config") or {})
        name = str(config.get("name", class_name))
        if class_name == "InputLayer":
            continue
        weights = file.weights(name, class_name, count[class_name])
        count[class_name] += 1
        layer = Layer(name, class_name, config, weights, width, kind, steps, file.keras_major)
        if class_name == "Flatten":
            kind = "flat" if kind == "sequence" else kind
            continue
        if class_name not in RULES:
            raise layer.refused(REASONS.get(class_name, "this class of layer is not known"))
        if kind in ("last", "flat", "end") and class_name in ("LSTM", "GRU", "SimpleRNN"):
            raise layer.refused("no sequence reaches it", "set return_sequences=True in the layer before")
        if number == head and activation != "linear":
            # Logits and outputs are published apart, so the program stops before the head's activation.
            if class_name != "Dense":
                continue
            config["activation"] = "linear"
        node = RULES[class_name](layer)
        nodes.append(node)
        used.extend(weights)
        width, kind = node.width, node.kind
    _check_end(file, kind)
    config = file.configuration["config"]
    title = config.get("name") if isinstance(config, dict) else None
    return StepProgram(
        name=str(title or "model"),
        features=features,
        timesteps=steps,
        nodes=tuple(nodes),
        activation=activation,
        exactness="end" if kind == "end" else "prefix",
        fingerprint=_fingerprint(file, used, steps),
    )


def _check_end(file: ModelFile, kind: str) -> None:
    if kind == "flat":
        raise ModelNotStreamable(f"{file.path} ends with Flatten", "a classifier ends with Dense")
    if kind == "sequence":
        raise ModelNotStreamable(
            f"{file.path} gives one output per step, not one per sequence",
            "end it with return_sequences=False or with Flatten and Dense",
        )


def _head(layers: list[dict[str, Any]]) -> tuple[int, str]:
    """The number of the layer whose activation turns logits into outputs, and that activation."""
    ignored = ("Dropout", "Identity")
    last = max((i for i, entry in enumerate(layers) if entry.get("class_name") not in ignored), default=0)
    class_name, config = layers[last].get("class_name"), layers[last].get("config") or {}
    if class_name == "Softmax":
        return last, "softmax"
    if class_name in ("Dense", "Activation") and config.get("activation") in ("sigmoid", "softmax"):
        return last, str(config["activation"])
    return last, "linear"


def _sequential_layers(file: ModelFile) -> list[dict[str, Any]]:
    configuration = file.configuration
    if configuration.get("class_name") != "Sequential":
        raise ModelNotStreamable(
            f"{file.path} is a {configuration.get('class_name')} model", "functional graphs are not supported yet"
        )
    config = configuration.get("config")
    layers = config if isinstance(config, list) else (config or {}).get("layers")
    if not isinstance(layers, list) or not layers or len(layers) > LAYERS_MAX:
        raise ModelNotStreamable(f"{file.path} has no layers, or too many", "save the trained model again")
    return layers


def _input_shape(file: ModelFile, layers: list[dict[str, Any]]) -> tuple[int, int | None]:
    config = layers[0].get("config") or {}
    shape = config.get("batch_shape") or config.get("batch_input_shape")
    build = file.configuration.get("build_config")
    if shape is None and isinstance(build, dict):
        shape = build.get("input_shape")
    if not isinstance(shape, list) or len(shape) != 3 or not isinstance(shape[2], int):
        raise ModelNotStreamable(
            f"{file.path} takes input of shape {shape}, not (batch, timesteps, features)", "serve a sequence model"
        )
    return shape[2], shape[1]


def _fingerprint(file: ModelFile, weights: list[Array], steps: int | None) -> str:
    """sha256 of what the numbers depend on: layer configurations in canonical form, steps, and weights."""
    layers = [
        {"class_name": entry.get("class_name"), "config": _essential(entry.get("config") or {})}
        for entry in _sequential_layers(file)
        if entry.get("class_name") != "InputLayer"
    ]
    digest = hashlib.sha256(json.dumps([layers, steps, file.keras_major < 3], sort_keys=True).encode())
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
