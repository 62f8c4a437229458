"""Activation functions by their names in Keras files, over an array namespace."""

from __future__ import annotations

from collections.abc import Callable
from math import erfc, pi, sqrt
from typing import Any

import numpy as np

from worker.model.files.legacy import is_custom

Function = Callable[[Any, Any], Any]
"""(array namespace, values) → values, elementwise but for OVER_ROWS (last axis)."""


def sigmoid(xp: Any, x: Any) -> Any:
    """By tanh, which does not overflow: 1/2 tanh(x/2) + 1/2."""
    return xp.tanh(x * 0.5) * 0.5 + 0.5


def softmax(xp: Any, x: Any) -> Any:
    """Over the last axis."""
    powers = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return powers / xp.sum(powers, axis=-1, keepdims=True)


def log_softmax(xp: Any, x: Any) -> Any:
    """Over the last axis."""
    below = x - xp.max(x, axis=-1, keepdims=True)
    return below - xp.log(xp.sum(xp.exp(below), axis=-1, keepdims=True))


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


def celu(alpha: float = 1.0) -> Function:
    return lambda xp, x: xp.maximum(x, 0) + alpha * xp.expm1(xp.minimum(x, 0) / alpha)


def clip(low: float, high: float) -> Function:
    return lambda xp, x: xp.minimum(xp.maximum(x, low), high)


def hard_shrink(threshold: float = 0.5) -> Function:
    return lambda xp, x: xp.where(xp.abs(x) > threshold, x, xp.zeros_like(x))


def soft_shrink(threshold: float = 0.5) -> Function:
    """What is nearer to 0 becomes 0, the rest comes nearer by as much."""
    return lambda xp, x: x - xp.minimum(xp.maximum(x, -threshold), threshold)


def squareplus(b: float = 4.0) -> Function:
    """(x + sqrt(x² + b)) / 2, for negative x without the difference of two large numbers."""

    def function(xp: Any, x: Any) -> Any:
        large = (xp.abs(x) + xp.sqrt(x * x + b)) * 0.5
        return xp.where(x > 0, large, 0.25 * b / large)

    return function


def gelu(xp: Any, x: Any) -> Any:
    """x times the share of a normal distribution that is below x."""
    if x.dtype == np.float64:
        return x * _NORMAL_SHARE(x).astype(np.float64)
    distance = xp.abs(x) * sqrt(0.5)
    t = 1 / (1 + 0.5 * distance)
    power = xp.zeros_like(t) + _ERFC[0]
    for coefficient in _ERFC[1:]:
        power = power * t + coefficient
    tail = 0.5 * t * xp.exp(power - distance * distance)
    return x * xp.where(x > 0, 1 - tail, tail)


_NORMAL_SHARE = np.frompyfunc(lambda x: 0.5 * erfc(-x * sqrt(0.5)), 1, 1)
_ERFC = (
    *(0.17840398, -0.85839095, 1.5621537, -1.2173702, 0.33367464),
    *(-0.2085799, 0.10218678, 0.37336471, 1.0000705, -1.2655132),
)
"""A polynomial of t = 1 / (1 + z / 2), highest power first: log(erfc(z) / t) + z², within 1.3e-7, a share of erfc."""


def gelu_by_tanh(xp: Any, x: Any) -> Any:
    """`gelu(approximate=True)`."""
    return 0.5 * x * (1 + xp.tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)))


def _softplus(xp: Any, x: Any) -> Any:
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))


def _silu(xp: Any, x: Any) -> Any:
    """x · sigmoid(x), without the error of a small sigmoid, which a large x would magnify."""
    return x * xp.exp(xp.minimum(x, 0)) / (1 + xp.exp(-xp.abs(x)))


def _sparse_plus(xp: Any, x: Any) -> Any:
    """A parabola from -1 to 1 between 0 and x."""
    near = xp.maximum(x, -1) + 1
    return xp.where(x < 1, 0.25 * near * near, x)


_HARD_SIGMOID_KERAS_2: Function = lambda xp, x: xp.minimum(xp.maximum(0.2 * x + 0.5, 0), 1)  # noqa: E731
_HARD_SIGMOID_KERAS_3: Function = lambda xp, x: xp.minimum(xp.maximum(x / 6 + 0.5, 0), 1)  # noqa: E731
FUNCTIONS: dict[str, Function] = {
    "linear": lambda _, x: x,
    "tanh": lambda xp, x: xp.tanh(x),
    "sigmoid": sigmoid,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "relu": lambda xp, x: xp.maximum(x, 0),
    "relu6": clip(0, 6),
    "leaky_relu": leaky_relu(0.2),
    "elu": elu(),
    "selu": elu(1.6732632423543772, 1.0507009873554805),
    "celu": celu(),
    "gelu": gelu,
    "softplus": _softplus,
    "squareplus": squareplus(),
    "sparse_plus": _sparse_plus,
    "softsign": lambda xp, x: x / (1 + xp.abs(x)),
    "exponential": lambda xp, x: xp.exp(x),
    "mish": lambda xp, x: x * xp.tanh(_softplus(xp, x)),
    **dict.fromkeys(("silu", "swish"), _silu),
    **dict.fromkeys(("hard_silu", "hard_swish"), lambda xp, x: x * _HARD_SIGMOID_KERAS_3(xp, x)),
    "log_sigmoid": lambda xp, x: -_softplus(xp, -x),
    "sparse_sigmoid": lambda xp, x: xp.minimum(xp.maximum(0.5 * (x + 1), 0), 1),
    "hard_tanh": clip(-1, 1),
    "hard_shrink": hard_shrink(),
    "soft_shrink": soft_shrink(),
    "tanh_shrink": lambda xp, x: x - xp.tanh(x),
}
OVER_ROWS = (softmax, log_softmax)
"""Those that work on all features together."""


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
