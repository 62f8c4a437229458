"""Functions and operators of Keras 3 in a functional model, and operators with a constant (`1 - x`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from worker.model import activations
from worker.model.activations import Function
from worker.model.files.weights import WAY_OUT, Array
from worker.model.program import Node
from worker.model.rules.activation import OVER_STEPS, PARAMETER_MAX, number
from worker.model.rules.context import CONSTANT_FIRST, OR_BUFFER, Layer, shown
from worker.model.rules.elementwise import stateless

WITH_CONSTANT = ("Add", "Subtract", "Multiply", "Divide", "Power", "Maximum", "Minimum")
"""Operators of two values that may have a constant in the place of one."""


def with_constant(layer: Layer, arguments: list[Any]) -> Layer:
    """The layer that an operator of one value and a constant is. Raises ModelNotStreamable for other constants."""
    if layer.class_name not in WITH_CONSTANT or not layer.is_operation or len(arguments) != 1:
        way_out = f"put the constant into a layer, such as Rescaling{OR_BUFFER}"
        raise layer.refused("it is called with a constant", way_out)
    constant = _constant(layer, arguments[0])
    parts = _as_rescaling(layer.class_name, constant.astype(np.float64), layer.config.get(CONSTANT_FIRST) is True)
    if parts is None:
        return replace(layer, constant=constant)
    scale, offset = (np.asarray(part, np.float32).tolist() for part in parts)
    return replace(layer, class_name="Rescaling", config={"name": layer.name, "scale": scale, "offset": offset})


def _constant(layer: Layer, value: Any) -> Array:
    """A number, or one for each feature."""
    width = layer.width if layer.shape is None else layer.shape[-1]
    dimensions = (3 if layer.kind == "sequence" else 2) + max(0, len(layer.shape or ()) - 1)
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise layer.refused(f"it is called with {shown(value)}", WAY_OUT) from error
    if isinstance(value, bool) or not (np.abs(found) <= PARAMETER_MAX).all():
        raise layer.refused(f"it is called with {shown(value)}, not with a number", WAY_OUT)
    is_row = 1 <= found.ndim <= dimensions and found.size == found.shape[-1]
    if found.size != 1 and not (is_row and found.size == width and layer.kind != "flat"):
        reason = f"it is called with a constant of the shape {found.shape} for {width} features"
        raise layer.refused(reason, f"use one number, or one for each feature{OR_BUFFER}")
    return found.astype(np.float32).reshape(() if found.size == 1 else (width,))


def _as_rescaling(class_name: str, constant: Any, is_first: bool) -> tuple[Any, Any] | None:
    """(scale, offset) of an operator that is x · scale + offset; None for the others."""
    zero, one = np.zeros_like(constant), np.ones_like(constant)
    if class_name == "Add":
        return one, constant
    if class_name == "Subtract":
        return (-one, constant) if is_first else (one, -constant)
    if class_name == "Multiply":
        return constant, zero
    is_divisor = class_name == "Divide" and not is_first and (np.abs(constant) > 1 / PARAMETER_MAX).all()
    return (1 / constant, zero) if is_divisor else None


def _log_softmax(layer: Layer) -> Function:
    if layer.kind == "flat" or not layer.is_over_features(layer.config.get("axis", -1)):
        raise layer.refused(OVER_STEPS)
    return activations.log_softmax


def _threshold(layer: Layer) -> Function:
    threshold, otherwise = (number(layer, layer.config.get(key)) for key in ("threshold", "default_value"))
    return lambda xp, x: xp.where(x > threshold, x, xp.zeros_like(x) + otherwise)


def _of_one(make: Callable[[float], Function], key: str, default: float) -> Callable[[Layer], Function]:
    """Of a function with one parameter."""
    return lambda layer: make(number(layer, layer.config.get(key, default)))


def _squareplus(layer: Layer) -> Function:
    b = number(layer, layer.config.get("b", 4.0))
    if b <= 0:
        raise layer.refused(f"b is {shown(b)}, not above 0", WAY_OUT)
    return activations.squareplus(b)


def _celu(layer: Layer) -> Function:
    alpha = number(layer, layer.config.get("alpha", 1.0))
    if alpha == 0:
        raise layer.refused("alpha is 0", WAY_OUT)
    return activations.celu(alpha)


_FUNCTIONS: dict[str, Function] = {
    **dict.fromkeys(("Absolute", "Abs"), lambda xp, x: xp.abs(x)),
    "Square": lambda _, x: x * x,
    "Sqrt": lambda xp, x: xp.sqrt(x),
    "Rsqrt": lambda xp, x: 1 / xp.sqrt(x),
    "Reciprocal": lambda _, x: 1 / x,
    "Log": lambda xp, x: xp.log(x),
    "Log1p": lambda xp, x: xp.log1p(x),
    "Expm1": lambda xp, x: xp.expm1(x),
    "Sin": lambda xp, x: xp.sin(x),
    "Cos": lambda xp, x: xp.cos(x),
    "Sign": lambda xp, x: xp.sign(x),
}
_WITH_PARAMETERS: dict[str, Callable[[Layer], Function]] = {
    "Clip": lambda layer: activations.clip(*(number(layer, layer.config.get(key)) for key in ("x_min", "x_max"))),
    "Gelu": lambda layer: activations.gelu_by_tanh if layer.flag("approximate", True) else activations.gelu,
    "LeakyRelu": _of_one(activations.leaky_relu, "negative_slope", 0.2),
    "Celu": _celu,
    "Squareplus": _squareplus,
    "SoftShrink": _of_one(activations.soft_shrink, "threshold", 0.5),
    "HardShrink": _of_one(activations.hard_shrink, "threshold", 0.5),
    "Threshold": _threshold,
    "LogSoftmax": _log_softmax,
}


def _rule(layer: Layer) -> Node:
    make = _WITH_PARAMETERS.get(layer.class_name)
    return stateless(layer, _FUNCTIONS[layer.class_name] if make is None else make(layer))


OPERATORS: dict[str, Callable[[Layer], Node]] = dict.fromkeys([*_FUNCTIONS, *_WITH_PARAMETERS], _rule)
"""By their classes; layers of these names there are none in Keras."""
