"""Activation functions by their names in Keras files, over an array namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from worker.model.files.legacy import is_custom

Function = Callable[[Any, Any], Any]
"""(array namespace, values) → values, elementwise but for softmax (last axis)."""


def sigmoid(xp: Any, x: Any) -> Any:
    """By tanh, which does not overflow: 1/2 tanh(x/2) + 1/2."""
    return xp.tanh(x * 0.5) * 0.5 + 0.5


def softmax(xp: Any, x: Any) -> Any:
    """Over the last axis."""
    powers = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return powers / xp.sum(powers, axis=-1, keepdims=True)


def elu(alpha: float = 1.0, scale: float = 1.0) -> Function:
    """`scale` is that of SELU."""
    return lambda xp, x: scale * xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))


def leaky_relu(slope: float) -> Function:
    if 0 <= slope <= 1:
        return lambda xp, x: xp.maximum(x, slope * x)
    return lambda xp, x: xp.where(x > 0, x, slope * x)


def relu(top: float | None = None, slope: float = 0.0, threshold: float = 0.0) -> Function:
    """What is at the threshold is below it."""

    def function(xp: Any, x: Any) -> Any:
        y = xp.where(x > threshold, x, slope * (x - threshold))
        return y if top is None else xp.minimum(y, top)

    return function


def _softplus(xp: Any, x: Any) -> Any:
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))


FUNCTIONS: dict[str, Function] = {
    "linear": lambda _, x: x,
    "tanh": lambda xp, x: xp.tanh(x),
    "sigmoid": sigmoid,
    "softmax": softmax,
    "relu": lambda xp, x: xp.maximum(x, 0),
    "relu6": lambda xp, x: xp.minimum(xp.maximum(x, 0), 6),
    "leaky_relu": leaky_relu(0.2),
    "elu": elu(),
    "selu": elu(1.6732632423543772, 1.0507009873554805),
    "softplus": _softplus,
    "softsign": lambda xp, x: x / (1 + xp.abs(x)),
    "exponential": lambda xp, x: xp.exp(x),
    "swish": lambda xp, x: x * sigmoid(xp, x),
    "silu": lambda xp, x: x * sigmoid(xp, x),
}
OVER_ROWS = (softmax,)
"""Those that work on all features together."""
_HARD_SIGMOID_KERAS_2: Function = lambda xp, x: xp.minimum(xp.maximum(0.2 * x + 0.5, 0), 1)  # noqa: E731
_HARD_SIGMOID_KERAS_3: Function = lambda xp, x: xp.minimum(xp.maximum(x / 6 + 0.5, 0), 1)  # noqa: E731


def function_of(name: object, keras_major: int) -> Function | None:
    """None for a name that is not on the list; Keras 3 redefined `hard_sigmoid`."""
    if name == "hard_sigmoid":
        return _HARD_SIGMOID_KERAS_2 if keras_major < 3 else _HARD_SIGMOID_KERAS_3
    return FUNCTIONS.get(name) if isinstance(name, str) else None


def activation_name(value: Any) -> Any:
    """The name in a layer's `activation`: a string, nothing, or an object that wraps the name.

    A layer in its place is no function, whatever it is called, but for a softmax over the last axis.
    """
    if not isinstance(value, dict):
        return "linear" if value is None else value
    class_name, config = value.get("class_name"), value.get("config")
    if is_custom(value):
        return f"{value.get('module', 'custom')}.{config if isinstance(config, str) else class_name}"
    if isinstance(config, str):
        return config
    if class_name == "Activation" and isinstance(config, dict):
        return activation_name(config.get("activation"))
    if class_name == "Softmax" and isinstance(config, dict) and config.get("axis", -1) in (-1, [-1]):
        return "softmax"
    return f"layer {class_name}"
