"""Stacks of PyTorch's LSTM, GRU, RNN and Linear: `.safetensors` with a JSON beside it, as a Keras configuration.

The JSON lists the modules in the order of `forward`; `name` is the attribute that holds the module, the first part of
its tensors' names:

    {"timesteps": 7, "layers": [{"module": "LSTM", "name": "lstm"}, {"module": "Last"},
                                {"module": "Linear", "name": "fc"}, {"module": "Sigmoid"}]}

`Last` is `out[:, -1]`, `Flatten` is `out.flatten(1)`; `timesteps` is needed with `Flatten` only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from worker.errors import ModelNotStreamable
from worker.model.files.json_text import json_object, read_bounded
from worker.model.files.keras_hdf5 import architecture_path
from worker.model.files.refusal import refused
from worker.model.files.safetensors import Tensor, read_header, read_tensor
from worker.model.files.weights import Array, WeightReader

LAYERS_MAX = 1000
STACKED_MAX = 64
WAY_OUT = "see docs/model_files.md for what it may hold"
TORCH_WAY_OUT = (
    "compare its JSON with the trained module, or save the state_dict again with safetensors.torch.save_file"
)
RECURRENT = {"LSTM": "LSTM", "GRU": "GRU", "RNN": "SimpleRNN"}
ACTIVATIONS = {
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "ReLU": "relu",
    "ReLU6": "relu6",
    "SiLU": "silu",
    "SELU": "selu",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Softmax": "softmax",
    "Hardsigmoid": "hard_sigmoid",
}
"""Modules that Keras has as activations, with PyTorch's default parameters; Softmax over the features."""
PARAMETERS = {"LeakyReLU": ("negative_slope", 0.01), "ELU": ("alpha", 1.0)}
NOTHING = ("Dropout", "Identity")
KEYS = {"RNN": ("nonlinearity",)} | {module: (key,) for module, (key, _) in PARAMETERS.items()}
"""What the JSON may say of a module besides its name."""
TOP_KEYS = ("layers", "timesteps")


@dataclass(slots=True)
class TorchStack:
    """`configuration` in the words of Keras 3, and `weights(layer name)` in its layouts."""

    path: Path
    reader: WeightReader
    tensors: dict[str, Tensor]
    layers: list[dict[str, Any]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    features: int | None = None
    timesteps: Any = None
    has_steps: bool = True
    arrays: dict[str, Callable[[], list[Array]]] = field(default_factory=dict)

    @property
    def configuration(self) -> dict[str, Any]:
        """A Sequential."""
        entry = {"batch_shape": [None, self.timesteps, self.features], "name": "input"}
        layers = [{"class_name": "InputLayer", "config": entry}, *self.layers]
        return {"class_name": "Sequential", "config": {"name": self.path.name.split(".")[0], "layers": layers}}

    def weights(self, name: str) -> list[Array]:
        """Of the Keras layer that a module, or one of its stacked layers, became."""
        return self.arrays[name]() if name in self.arrays else []

    def add(self, class_name: str, **config: Any) -> None:
        """One layer of the Keras configuration."""
        config.setdefault("name", f"{class_name.lower()}_{len(self.layers)}")
        self.layers.append({"class_name": class_name, "config": config})


def read_torch_stack(path: Path, reader: WeightReader, architecture: Path | None = None) -> TorchStack:
    """Raises ModelNotStreamable where file and JSON do not fit, naming the module or the tensor."""
    beside = architecture or architecture_path(path)
    if not beside.is_file():
        raise refused(path, "holds tensors but no architecture", f"name its layers in {beside}; {WAY_OUT}")
    with beside.open("rb") as file:
        described = json_object(beside, "text", read_bounded(file), WAY_OUT)
    unknown = [key for key in described if key not in TOP_KEYS]
    if unknown:
        raise refused(
            beside, f"has the unknown key {unknown[0][:40]!r}", f"say {' and '.join(TOP_KEYS)} only; {WAY_OUT}"
        )
    modules = described.get("layers")
    if not isinstance(modules, list) or not 1 <= len(modules) <= LAYERS_MAX:
        raise refused(beside, f"has no list `layers` of 1 to {LAYERS_MAX} modules", WAY_OUT)
    stack = TorchStack(path, reader, read_header(path), timesteps=described.get("timesteps"))
    for number, module in enumerate(modules):
        _add_module(stack, beside, number, module)
    unused = sorted(set(stack.tensors) - stack.used)
    if unused:
        raise refused(beside, f"names no module for the tensor {unused[0][:60]!r}", f"list every module; {WAY_OUT}")
    return stack


def _add_module(stack: TorchStack, beside: Path, number: int, module: Any) -> None:
    kind = module.get("module") if isinstance(module, dict) else None
    if not isinstance(kind, str):
        raise refused(beside, f"has no `module` in layer {number}", WAY_OUT)
    _check_known(beside, number, kind)
    unknown = [key for key in module if key not in ("module", "name", *KEYS.get(kind, ()))]
    if unknown:
        raise refused(beside, f"has the unknown key {unknown[0][:40]!r} in layer {number}, a {kind}", WAY_OUT)
    if kind in RECURRENT:
        _add_recurrent(stack, beside, kind, module)
    elif kind == "Linear":
        _add_linear(stack, beside, module)
    elif kind == "Last":
        _take_last(stack, beside, number)
    elif kind in ACTIVATIONS:
        stack.add("Activation", activation=ACTIVATIONS[kind])
    elif kind in PARAMETERS:
        key, default = PARAMETERS[kind]
        stack.add(kind, **{key: module.get(key, default)})
    elif kind == "Flatten":
        stack.has_steps = False
        stack.add("Flatten")


def _check_known(beside: Path, number: int, kind: str) -> None:
    known = [*RECURRENT, "Linear", "Last", "Flatten", *PARAMETERS, *ACTIVATIONS, *NOTHING]
    if kind not in known:
        what = f"has the module {kind[:40]!r} in layer {number}, which is not known"
        raise refused(beside, what, f"use {', '.join(known)}")


def _take_last(stack: TorchStack, beside: Path, number: int) -> None:
    """Everything between the recurrent layer and `Last` works on each step alone, so its last output is enough."""
    if not stack.has_steps:
        raise refused(beside, f"has `Last` in layer {number}, where there are no steps any more", WAY_OUT)
    stack.has_steps = False
    for entry in reversed(stack.layers):
        if entry["class_name"] in RECURRENT.values():
            entry["config"]["return_sequences"] = False
            return
    raise refused(beside, "has `Last` before any recurrent module", WAY_OUT)


def _name(beside: Path, module: dict[str, Any]) -> str:
    name = module.get("name")
    if not isinstance(name, str) or not name:
        raise refused(beside, f"has a {module['module']} without `name`", WAY_OUT)
    return name


def _add_linear(stack: TorchStack, beside: Path, module: dict[str, Any]) -> None:
    name = _name(beside, module)
    weight = _tensor(stack, beside, f"{name}.weight", 2)
    use_bias = f"{name}.bias" in stack.tensors
    names = [f"{name}.weight"] + [f"{name}.bias"] * use_bias
    stack.used.update(names)
    stack.features = stack.features or weight.shape[1]

    def arrays() -> list[Array]:
        kernel, *bias = _read(stack, names)
        return [np.ascontiguousarray(kernel.T), *bias]

    _claim(stack, beside, name, arrays)
    stack.add("Dense", name=name, units=weight.shape[0], use_bias=use_bias, activation="linear")


def _add_recurrent(stack: TorchStack, beside: Path, kind: str, module: dict[str, Any]) -> None:
    name = _name(beside, module)
    prefix = f"{name}."
    for suffix, what in (("_reverse", "bidirectional"), ("weight_hr_l0", "a projection (proj_size)")):
        if any(each.startswith(prefix) and each.endswith(suffix) for each in stack.tensors):
            raise refused(beside, f"names {name[:60]!r}, which is {what}", "train it again without that")
    if name in stack.arrays or f"{name}_l0" in stack.arrays:
        raise _twice(beside, name)
    number = 0
    while number == 0 or f"{prefix}weight_ih_l{number}" in stack.tensors:
        if number == STACKED_MAX:
            raise refused(beside, f"names {name[:60]!r} of more than {STACKED_MAX} stacked layers", WAY_OUT)
        _add_stacked(stack, beside, kind, module, number)
        number += 1
    if number > 1:
        return
    entry = stack.layers[-1]["config"]
    stack.arrays[name] = stack.arrays.pop(entry["name"])
    entry["name"] = name


def _add_stacked(stack: TorchStack, beside: Path, kind: str, module: dict[str, Any], number: int) -> None:
    """One of the stacked layers of a module, of any size: the compiler compares all shapes."""
    prefix = f"{module['name']}."
    name = f"{module['name']}_l{number}"
    names = [f"{prefix}{part}_l{number}" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    use_bias = names[2] in stack.tensors
    names = names if use_bias else names[:2]
    inputs, recurrent = (_tensor(stack, beside, each, 2) for each in names[:2])
    for each in names[2:]:
        _tensor(stack, beside, each, 1)
    stack.used.update(names)
    stack.features = stack.features or inputs.shape[1]
    config: dict[str, Any] = {"use_bias": use_bias, "return_sequences": True, "units": recurrent.shape[1]}
    config["activation"] = module.get("nonlinearity", "tanh") if kind == "RNN" else "tanh"
    if kind == "RNN" and config["activation"] not in ("tanh", "relu"):
        raise refused(beside, f"names {module['name'][:60]!r} of an unknown nonlinearity", "give 'tanh' or 'relu'")
    if kind != "RNN":
        config["recurrent_activation"] = "sigmoid"
    if kind == "GRU":
        config["reset_after"] = True
    _claim(stack, beside, name, lambda: keras_weights(kind, _read(stack, names)))
    stack.add(RECURRENT[kind], name=name, **config)


def keras_weights(kind: str, arrays: list[Array]) -> list[Array]:
    """PyTorch's (gates · units, inputs) to Keras' (inputs, gates · units), and both biases to Keras' own.

    LSTM gates are i, f, g, o in both. GRU gates are r, z, n in PyTorch and z, r, h in Keras; with `reset_after` Keras
    keeps the recurrent bias apart as well. Everywhere else only the sum of the two biases counts.
    """
    order = [1, 0, 2] if kind == "GRU" else list(range({"LSTM": 4, "RNN": 1}[kind]))
    if any(len(each) % len(order) for each in arrays):
        return []
    reordered = [np.concatenate([np.split(each, len(order))[gate] for gate in order]) for each in arrays]
    kernels = [np.ascontiguousarray(each.T) for each in reordered[:2]]
    if len(arrays) == 2:
        return kernels
    if reordered[2].shape != reordered[3].shape:
        return []
    return [*kernels, np.stack(reordered[2:]) if kind == "GRU" else reordered[2] + reordered[3]]


def _tensor(stack: TorchStack, beside: Path, name: str, dimensions: int) -> Tensor:
    tensor = stack.tensors.get(name)
    if tensor is None or len(tensor.shape) != dimensions:
        has = "the file does not have" if tensor is None else f"has the shape {tensor.shape}"
        raise refused(beside, f"needs the tensor {name[:80]!r}, which {has}", f"compare with its names; {WAY_OUT}")
    return tensor


def _claim(stack: TorchStack, beside: Path, name: str, arrays: Callable[[], list[Array]]) -> None:
    if name in stack.arrays:
        raise _twice(beside, name)
    stack.arrays[name] = arrays


def _twice(beside: Path, name: str) -> ModelNotStreamable:
    return refused(beside, f"names {name[:60]!r} twice", "give every module once; shared ones are not supported")


def _read(stack: TorchStack, names: list[str]) -> list[Array]:
    return [read_tensor(stack.path, stack.reader, name, stack.tensors[name]) for name in names]
