"""Operators of Keras 3 with a constant in the place of one value, such as `1 - x`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from worker.model.files.weights import WAY_OUT, Array
from worker.model.rules.activation import PARAMETER_MAX
from worker.model.rules.context import CONSTANT_FIRST, OR_BUFFER, Layer, shown

WITH_CONSTANT = ("Add", "Subtract", "Multiply", "Divide", "Power", "Maximum", "Minimum")
"""Operators of two values that may have a constant in the place of one."""


def constant_side(calls: Any) -> dict[str, bool]:
    """What the calls of an operator add to its configuration: whether its constant stands before the value."""
    arguments = (
        [call.get("args") if isinstance(call, dict) else None for call in calls] if isinstance(calls, list) else []
    )
    is_first = any(isinstance(each, list) and len(each) == 2 and _is_constant(each[0]) for each in arguments)
    return {CONSTANT_FIRST: True} if is_first else {}


def _is_constant(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_constant(each) for each in value)
    return isinstance(value, int | float)


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
