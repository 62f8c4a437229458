"""Functions of one value of Keras 3 in a functional model."""

from __future__ import annotations

from collections.abc import Callable

from worker.model import activations
from worker.model.activations import Function
from worker.model.files.weights import WAY_OUT
from worker.model.program import Node
from worker.model.rules.activation import OVER_STEPS, number
from worker.model.rules.context import Layer, shown
from worker.model.rules.elementwise import stateless


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
