"""Layers without a state: activations, rescaling, dropout (nothing at inference)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from worker.model.activations import activation, activation_name
from worker.model.files.weights import WAY_OUT
from worker.model.kernel.operations import Activation, KernelOp, Operation, activation_code
from worker.model.program import Node
from worker.model.rules.context import Layer, shown

PARAMETER_MAX = 3e38
"""Of a slope, scale or offset: the largest float32, rounded down."""


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
    """`Activation` by name."""
    if layer.kind == "flat" and activation_name(layer.config.get("activation")) == "softmax":
        raise layer.refused("a softmax over all steps needs all of them")
    function = activation(layer.config.get("activation"), layer.name, layer.keras_major)
    code = activation_code(activation_name(layer.config.get("activation")), layer.keras_major)
    return stateless(layer, function, _activation_op(layer, code))


def softmax_layer(layer: Layer) -> Node:
    """Over the features."""
    if layer.kind == "flat" or layer.config.get("axis", -1) not in (-1, [-1]):
        raise layer.refused("a softmax over all steps needs all of them")
    function = activation("softmax", layer.name, layer.keras_major)
    return stateless(layer, function)


def leaky_relu(layer: Layer) -> Node:
    """Keras 3 calls the slope `negative_slope`, Keras 2 `alpha`; both default to 0.3 in the layer."""
    slope = _number(layer, layer.config.get("negative_slope", layer.config.get("alpha", 0.3)))
    if 0 <= slope <= 1:
        kernel = _activation_op(layer, Activation.LEAKY_RELU, slope)
        return stateless(layer, lambda xp, x: xp.maximum(x, slope * x), kernel)
    return stateless(layer, lambda xp, x: xp.where(x > 0, x, slope * x))


def relu(layer: Layer) -> Node:
    """`ReLU(max_value, negative_slope, threshold)`."""
    top = None if layer.config.get("max_value") is None else _number(layer, layer.config["max_value"])
    slope = _number(layer, layer.config.get("negative_slope") or 0.0)
    threshold = _number(layer, layer.config.get("threshold") or 0.0)

    def function(xp: Any, x: Any) -> Any:
        y = xp.where(x >= threshold, x, slope * (x - threshold))
        return y if top is None else xp.minimum(y, top)

    plain = top is None and slope == 0 and threshold == 0
    return stateless(layer, function, _activation_op(layer, Activation.RELU) if plain else None)


def elu(layer: Layer) -> Node:
    """`ELU(alpha)`."""
    alpha = _number(layer, layer.config.get("alpha", 1.0))
    kernel = _activation_op(layer, Activation.ELU, alpha)
    return stateless(layer, lambda xp, x: xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0))), kernel)


def rescaling(layer: Layer) -> Node:
    """x · scale + offset."""
    scale = _number(layer, layer.config.get("scale", 1.0))
    offset = _number(layer, layer.config.get("offset", 0.0))
    kernel = scale_and_shift(layer, np.full(layer.width, scale), np.full(layer.width, offset))
    return stateless(layer, lambda _, x: x * scale + offset, kernel)


def scale_and_shift(layer: Layer, factor: Any, offset: Any) -> tuple[KernelOp, ...]:
    """x · factor + offset, one of each for every feature."""
    return (KernelOp(Operation.SCALE_AND_SHIFT, layer.width, layer.width, (factor, offset)),)


def _number(layer: Layer, value: Any) -> float:
    """Numbers as files hold them: plain, or Keras 2's wrapped numpy scalars."""
    if isinstance(value, dict):
        value = value.get("value", value.get("config"))
    if isinstance(value, dict):
        value = value.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= PARAMETER_MAX:
        raise layer.refused(f"a parameter is {shown(value)}, not a number", WAY_OUT)
    return float(value)
