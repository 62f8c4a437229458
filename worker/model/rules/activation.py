"""The function that a layer's `activation` is: one of Keras' by its name, or one of its layers with parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from worker.errors import ModelNotStreamable
from worker.model import activations
from worker.model.activations import FUNCTIONS, Function, activation_name, function_of
from worker.model.files.legacy import is_custom
from worker.model.files.weights import WAY_OUT
from worker.model.rules.context import OR_BUFFER, Layer, shown

PARAMETER_MAX = 3e38
"""Of a slope, scale or offset: the largest float32, rounded down."""
ONLY_KERAS = ("sparsemax",)
"""Of which Keras 3.15 computes something else than the name says. It does not run models with glu, which halves the
features."""
OVER_STEPS = "a softmax over all steps needs all of them"


def activation(layer: Layer, key: str = "activation", default: str | None = None, rank: int | None = None) -> Function:
    """Of that key of its configuration; `rank` of what it is of, where that is not what reaches the layer.

    Raises ModelNotStreamable for what is not on the lists.
    """
    return _function(layer, layer.config.get(key, default), rank)


def _function(layer: Layer, value: Any, rank: int | None) -> Function:
    function = function_of(activation_name(value), layer.keras_major)
    if function is not None:
        return function
    class_name, config = (value.get("class_name"), value.get("config")) if isinstance(value, dict) else (None, None)
    if isinstance(config, dict) and not is_custom(value):
        if class_name == "Activation":
            return _function(layer, config.get("activation"), rank)
        if class_name == "Softmax":
            return softmax(layer, config, rank)
        if class_name in OF_LAYERS:
            return OF_LAYERS[class_name](layer, config)
    known = ", ".join(sorted([*FUNCTIONS, "hard_sigmoid"]))
    runs = value in ONLY_KERAS or (isinstance(config, dict) and not is_custom(value))
    raise ModelNotStreamable(
        f"layer {layer.name!r} has activation {str(activation_name(value))[:40]!r}, which is not known",
        f"use one of {known}, or a layer of {', '.join([*OF_LAYERS, 'Softmax'])}{OR_BUFFER * runs}",
    )


def leaky_relu(layer: Layer, config: dict[str, Any]) -> Function:
    return activations.leaky_relu(leaky_relu_slope(layer, config))


def leaky_relu_slope(layer: Layer, config: dict[str, Any]) -> float:
    """Keras 3 calls the slope `negative_slope`, Keras 2 `alpha`; both default to 0.3 in the layer."""
    return number(layer, config.get("negative_slope", config.get("alpha", 0.3)))


def relu(layer: Layer, config: dict[str, Any]) -> Function:
    """`ReLU(max_value, negative_slope, threshold)`."""
    top = None if config.get("max_value") is None else number(layer, config["max_value"])
    slope, threshold = (number(layer, config.get(key) or 0.0) for key in ("negative_slope", "threshold"))
    return activations.relu(top, slope, threshold)


def elu(layer: Layer, config: dict[str, Any]) -> Function:
    """`ELU(alpha)`."""
    return activations.elu(number(layer, config.get("alpha", 1.0)))


def softmax(layer: Layer, config: dict[str, Any], rank: int | None = None) -> Function:
    """Over the features only."""
    if not layer.is_over_features(config.get("axis", -1), rank):
        raise layer.refused(OVER_STEPS)
    return activations.softmax


OF_LAYERS: dict[str, Callable[[Layer, dict[str, Any]], Function]] = {
    "ELU": elu,
    "LeakyReLU": leaky_relu,
    "ReLU": relu,
}
"""Layers that Keras takes as an activation, too; their names are the user's own."""


def number(layer: Layer, value: Any) -> float:
    """Numbers as files hold them: plain, or Keras 2's wrapped numpy scalars."""
    if isinstance(value, dict):
        value = value.get("value", value.get("config"))
    if isinstance(value, dict):
        value = value.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= PARAMETER_MAX:
        raise layer.refused(f"a parameter is {shown(value)}, not a number", WAY_OUT)
    return float(value)
