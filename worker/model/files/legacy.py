"""Configurations of older Keras in the words of Keras 3, so that the compiler knows one vocabulary.

What a word means without being written differently (`hard_sigmoid`, merged masks) follows from `ModelFile.keras_major`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from worker.errors import ModelNotStreamable
from worker.model.files.places import inner_layers
from worker.model.files.weights import WAY_OUT, Array

CLASS_NAMES = {
    "Model": "Functional",
    "CuDNNLSTM": "LSTM",
    "CuDNNGRU": "GRU",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
}
"""Of Keras 2, where Keras 3 has another or none."""
KERAS_1_KEYS = ("output_dim", "inner_activation", "nb_filter")
KERAS_MODULES = ("keras", "tf_keras", "tensorflow", "builtins")
"""The first part of `module` in the entries of Keras' own classes."""
CUDNN_LSTM, CUDNN_GRU = "CuDNNLSTM", "CuDNNGRU"


def keras_3_vocabulary(path: Path, configuration: dict[str, Any], keras_major: int) -> dict[str, Any]:
    """A copy in the words of Keras 3. Raises ModelNotStreamable for Keras 1 and for classes that are not Keras' own."""
    plain = unwrapped(configuration)
    if keras_major < 2 or _is_keras_1(plain):
        raise ModelNotStreamable(
            f"{path} was written by Keras 1", "load it with Keras 2.2, which converts it, and save it with model.save"
        )
    _translate(path, plain, keras_major)
    return dict(plain)


def unwrapped(value: Any) -> Any:
    """Wrapped tuples, shapes and numbers as lists and plain numbers, at any depth."""
    if isinstance(value, list):
        return [unwrapped(each) for each in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("class_name")
    if kind in ("__tuple__", "TensorShape") and isinstance(value.get("items"), list):
        return unwrapped(value["items"])
    if value.get("type") == "ndarray" and "value" in value:
        return unwrapped(value["value"])
    if kind in ("__numpy__", "__tensor__") and isinstance(value.get("config"), dict) and "value" in value["config"]:
        return unwrapped(value["config"]["value"])
    return {key: unwrapped(each) for key, each in value.items()}


def plain_weights(class_name: str, arrays: list[Array]) -> list[Array]:
    """The weights of a layer as the class it became in `keras_3_vocabulary` keeps them.

    CuDNN layers keep each gate's kernel as the (units, features) matrix that the library multiplies with, its memory
    taken as (features, units), recurrent kernels transposed, and input and recurrent biases one after the other.
    """
    if class_name not in (CUDNN_LSTM, CUDNN_GRU):
        return arrays
    gates = 4 if class_name == CUDNN_LSTM else 3
    if len(arrays) != 3 or any(array.size % gates for array in arrays) or arrays[0].ndim != 2 or arrays[1].ndim != 2:
        return []
    kernel, recurrent, bias = arrays
    units = kernel.shape[1] // gates
    if kernel.shape[1] % gates or recurrent.shape != (units, gates * units) or bias.shape != (2 * gates * units,):
        return []
    kernels = [each.reshape(units, -1).T for each in np.hsplit(kernel, gates)]
    recurrents = [each.T for each in np.hsplit(recurrent, gates)]
    both = bias.reshape(2, gates * units)
    return [np.hstack(kernels), np.hstack(recurrents), both.sum(axis=0) if class_name == CUDNN_LSTM else both]


def _is_keras_1(configuration: Any) -> bool:
    for entry in inner_layers(configuration):
        config = entry.get("config") if isinstance(entry, dict) else None
        if isinstance(config, dict) and any(key in config for key in KERAS_1_KEYS):
            # Embedding kept `output_dim` in Keras 2 and 3.
            return bool(entry.get("class_name") != "Embedding")
    return False


def _translate(path: Path, entry: Any, keras_major: int) -> None:
    """A model, a layer, or a layer inside another, in place; nesting is bounded by the JSON's."""
    if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
        return
    _refuse_custom(path, entry)
    _refuse_quantized(path, entry)
    class_name = entry["class_name"]
    entry["class_name"] = CLASS_NAMES.get(class_name, class_name)
    if class_name == "Sequential" and isinstance(entry.get("config"), list):
        entry["config"] = {"layers": entry["config"]}
    config = entry.get("config")
    if not isinstance(config, dict):
        return
    if class_name == "TensorFlowOpLayer" and "name" in entry:
        # Its configuration has the name of the operation, its calls refer to that of the layer.
        config["name"] = entry["name"]
    for inner in inner_layers(entry):
        _translate(path, inner, keras_major)
    if keras_major < 3:
        _number_calls_from_0(config)
    for key in ("layer", "cell", "forward_layer", "backward_layer"):
        _translate(path, config.get(key), keras_major)
    for cell in config["cells"] if isinstance(config.get("cells"), list) else []:
        _translate(path, cell, keras_major)
    _translate_keys(class_name, config, keras_major)


def _number_calls_from_0(config: dict[str, Any]) -> None:
    """Keras 2 counts the calls of a nested model from 1, as its own graph is call 0, and those of layers from 0."""
    layers = [each for each in inner_layers({"config": config}) if isinstance(each, dict)]
    nested = {each.get("name") for each in layers if each.get("class_name") in ("Functional", "Sequential")}
    calls = [each.get("inbound_nodes") for each in layers]
    found = [each for each in _references([calls, config.get("output_layers")]) if each[0] in nested]
    from_0 = {name for name, number, *_ in found if number == 0}
    for reference in found:
        if reference[0] not in from_0:
            reference[1] -= 1


def _references(value: Any) -> Iterator[list[Any]]:
    """The lists `[layer, call, tensor, …]` in a value; nesting is bounded by the JSON's."""
    if isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and type(value[1]) is int:
            yield value
        else:
            for each in value:
                yield from _references(each)


def _translate_keys(class_name: str, config: dict[str, Any], keras_major: int) -> None:
    if "batch_input_shape" in config:
        config.setdefault("batch_shape", config.pop("batch_input_shape"))
    if class_name == "LeakyReLU" and "alpha" in config:
        config.setdefault("negative_slope", config.pop("alpha"))
    if class_name in ("GRU", "GRUCell"):
        # Keras before 2.1.3 did not know the key and multiplied the reset gate before the product.
        config.setdefault("reset_after", keras_major >= 3)
    if class_name in (CUDNN_LSTM, CUDNN_GRU):
        config |= {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True}
    if class_name == CUDNN_GRU:
        config["reset_after"] = True
    axis = config.get("axis")
    if class_name.endswith("Normalization") and isinstance(axis, list) and len(axis) == 1:
        config["axis"] = axis[0]


def is_custom(entry: dict[str, Any]) -> bool:
    """Whether an entry is no layer or function of Keras: a user's own class may be called LSTM and be anything."""
    names = entry.get("registered_name"), entry.get("class_name")
    module = entry.get("module", KERAS_MODULES[0])
    is_own = isinstance(module, str) and module.split(".")[0] in KERAS_MODULES
    return not is_own or any(isinstance(name, str) and ">" in name for name in names)


def _refuse_quantized(path: Path, entry: dict[str, Any]) -> None:
    """Its weights are whole numbers with scales, or have scales besides."""
    config = entry.get("config")
    policy = config.get("dtype") if isinstance(config, dict) else None
    inside = policy.get("config") if isinstance(policy, dict) else None
    if isinstance(config, dict) and isinstance(inside, dict) and isinstance(inside.get("mode"), str):
        name, mode = str(config.get("name"))[:60], inside["mode"][:20]
        raise ModelNotStreamable(
            f"{path} has the layer {name!r}, which is quantized to {mode}", "save the model before model.quantize"
        )


def _refuse_custom(path: Path, entry: dict[str, Any]) -> None:
    if is_custom(entry):
        shown = str(entry.get("registered_name") or entry["class_name"])[:60]
        raise ModelNotStreamable(
            f"{path} has a layer of the custom class {shown!r}, and nothing in a file is executed",
            f"build the model from Keras' own layers, or {WAY_OUT}",
        )
