"""Activation functions by their names in Keras files, over an array namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from worker.errors import ModelNotStreamable

Function = Callable[[Any, Any], Any]
"""(array namespace, values) → values, elementwise but for softmax (last axis)."""


def sigmoid(xp: Any, x: Any) -> Any:
    """By tanh, which does not overflow: 1/2 tanh(x/2) + 1/2."""
    return xp.tanh(x * 0.5) * 0.5 + 0.5


def softmax(xp: Any, x: Any) -> Any:
    """Over the last axis."""
    powers = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return powers / xp.sum(powers, axis=-1, keepdims=True)


def _elu(xp: Any, x: Any, alpha: float = 1.0) -> Any:
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))


def _softplus(xp: Any, x: Any) -> Any:
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805

FUNCTIONS: dict[str, Function] = {
    "linear": lambda _, x: x,
    "tanh": lambda xp, x: xp.tanh(x),
    "sigmoid": sigmoid,
    "softmax": softmax,
    "relu": lambda xp, x: xp.maximum(x, 0),
    "relu6": lambda xp, x: xp.minimum(xp.maximum(x, 0), 6),
    "leaky_relu": lambda xp, x: xp.where(x > 0, x, 0.2 * x),
    "elu": _elu,
    "selu": lambda xp, x: _SELU_SCALE * _elu(xp, x, _SELU_ALPHA),
    "softplus": _softplus,
    "softsign": lambda xp, x: x / (1 + xp.abs(x)),
    "exponential": lambda xp, x: xp.exp(x),
    "swish": lambda xp, x: x * sigmoid(xp, x),
    "silu": lambda xp, x: x * sigmoid(xp, x),
}
_HARD_SIGMOID_KERAS_2: Function = lambda xp, x: xp.minimum(xp.maximum(0.2 * x + 0.5, 0), 1)  # noqa: E731
_HARD_SIGMOID_KERAS_3: Function = lambda xp, x: xp.minimum(xp.maximum(x / 6 + 0.5, 0), 1)  # noqa: E731


def activation_name(value: Any) -> Any:
    """The name in a layer's `activation`: a string, nothing, or an object that wraps the name."""
    if isinstance(value, dict):
        inner = value.get("config")
        return inner.get("name", value.get("class_name")) if isinstance(inner, dict) else inner
    return "linear" if value is None else value


def activation(value: Any, layer: str, keras_major: int) -> Function:
    """Raises ModelNotStreamable for a name that is not on the list; Keras 3 redefined `hard_sigmoid`."""
    name = activation_name(value)
    if name == "hard_sigmoid":
        return _HARD_SIGMOID_KERAS_2 if keras_major < 3 else _HARD_SIGMOID_KERAS_3
    if not isinstance(name, str) or name not in FUNCTIONS:
        raise ModelNotStreamable(
            f"layer {layer!r} has activation {str(name)[:40]!r}, which is not known",
            f"use one of {', '.join(sorted([*FUNCTIONS, 'hard_sigmoid']))}",
        )
    return FUNCTIONS[name]
