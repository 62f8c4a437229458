"""Layers without a state: activations, rescaling, dropout (nothing at inference)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from worker.model.activations import OVER_ROWS, activation_name
from worker.model.kernel.operations import Activation, KernelOp, Operation, activation_code
from worker.model.program import Node
from worker.model.rules import activation as of_layer
from worker.model.rules.activation import activation, number
from worker.model.rules.context import Layer


def stateless(
    layer: Layer, function: Callable[[Any, Any], Any], kernel: tuple[KernelOp, ...] | None = None, width: int = 0
) -> Node:
    """A node of `function(array namespace, x)`, the same at every step; `width` where it is not the layer's."""

    def step(xp: Any, x: Any, state: Any, steps: Any) -> Any:
        del steps
        return function(xp, x), state

    def whole(x: Any) -> Any:
        return function(np, x)

    return Node(layer.name, layer.class_name, layer.kind, width or layer.width, 0, step, whole, layer.exact(), kernel)


def _activation_op(layer: Layer, code: Activation | None, parameter: float = 0.0) -> tuple[KernelOp, ...] | None:
    if code is None:
        return None
    return (KernelOp(Operation.ACTIVATION, layer.width, layer.width, activation=code, parameter=parameter),)


def identity(layer: Layer) -> Node:
    """Dropout and noise do nothing at inference."""
    return stateless(layer, lambda _, x: x, ())


def activation_layer(layer: Layer) -> Node:
    """`Activation` by name, or by a layer."""
    function = activation(layer)
    if layer.kind == "flat" and function in OVER_ROWS:
        raise layer.refused(of_layer.OVER_STEPS)
    code = activation_code(activation_name(layer.config.get("activation")), layer.keras_major)
    return stateless(layer, function, _activation_op(layer, code))


def softmax_layer(layer: Layer) -> Node:
    """Over the features."""
    if layer.kind == "flat":
        raise layer.refused(of_layer.OVER_STEPS)
    return stateless(layer, of_layer.softmax(layer, layer.config))


def leaky_relu(layer: Layer) -> Node:
    """max(x, 0) + slope · min(x, 0)."""
    slope = of_layer.leaky_relu_slope(layer, layer.config)
    kernel = _activation_op(layer, Activation.LEAKY_RELU, slope) if 0 <= slope <= 1 else None
    return stateless(layer, of_layer.leaky_relu(layer, layer.config), kernel)


def relu(layer: Layer) -> Node:
    """`ReLU(max_value, negative_slope, threshold)`."""
    plain = layer.config.get("max_value") is None and not any(
        layer.config.get(key) for key in ("negative_slope", "threshold")
    )
    kernel = _activation_op(layer, Activation.RELU) if plain else None
    return stateless(layer, of_layer.relu(layer, layer.config), kernel)


def elu(layer: Layer) -> Node:
    """`ELU(alpha)`."""
    alpha = number(layer, layer.config.get("alpha", 1.0))
    return stateless(layer, of_layer.elu(layer, layer.config), _activation_op(layer, Activation.ELU, alpha))


def rescaling(layer: Layer) -> Node:
    """x · scale + offset, with one of each or one for each feature."""
    scale, offset = _one_or_each(layer, "scale", 1.0), _one_or_each(layer, "offset", 0.0)
    kernel = scale_and_shift(layer, np.full(layer.width, scale), np.full(layer.width, offset))
    return stateless(layer, lambda _, x: x * scale + offset, kernel)


def _one_or_each(layer: Layer, key: str, default: float) -> Any:
    value = layer.config.get(key, default)
    if not isinstance(value, list):
        return number(layer, value)
    numbers = [number(layer, each) for each in value]
    if layer.kind == "flat" or len(numbers) not in (1, layer.width):
        raise layer.refused(f"{key} has {len(numbers)} numbers for {layer.width} features", "give it one number")
    return np.array(numbers, np.float32)


def scale_and_shift(layer: Layer, factor: Any, offset: Any) -> tuple[KernelOp, ...]:
    """x · factor + offset, one of each for every feature."""
    return (KernelOp(Operation.SCALE_AND_SHIFT, layer.width, layer.width, (factor, offset)),)
