"""Normalisations over the features, with fixed statistics or with those of the step itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.model.files.weights import WAY_OUT, Array
from worker.model.program import Node
from worker.model.rules.context import OR_BUFFER, Layer, shown
from worker.model.rules.elementwise import scale_and_shift, stateless
from worker.model.rules.stepwise import by_step

DENOMINATOR_MIN = 1e-7
"""Keras' `backend.epsilon()`."""
SQUARES_MIN = 1e-12
"""Of `UnitNormalization`."""


def _over_features(layer: Layer) -> None:
    """Raises ModelNotStreamable for any axis that is or includes time."""
    if layer.kind == "flat" or not layer.is_over_features(layer.config.get("axis", -1)):
        # Keras 3.15 does not run RMSNormalization over time either.
        way_out = f"normalise over axis=-1{OR_BUFFER * (layer.class_name != 'RMSNormalization')}"
        raise layer.refused("it normalises over time, so every step depends on later ones", way_out)


def _vectors(layer: Layer, names: list[str], rows: tuple[int, int] | None = None) -> list[Array]:
    found = [weight.shape for weight in layer.weights[: len(names)]]
    numbers = layer.width if rows is None else rows[0] * rows[1]
    if found != [(numbers,)] * len(names):
        wanted = f"{', '.join(names)} of {numbers} numbers each" if names else "nothing"
        raise layer.refused(f"its configuration implies {wanted}, the file has {found or 'none'}", WAY_OUT)
    return layer.weights


def _number(layer: Layer, key: str, default: float) -> float:
    value = layer.config.get(key, default)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e30:
        raise layer.refused(f"{key} is {shown(value)}, not a number", WAY_OUT)
    return float(value)


def batch_normalization(layer: Layer) -> Node:
    """With the moving statistics: one factor and one offset for each feature, or for each step where the axis is time
    or the sequence is flattened."""
    rows = _rows(layer)
    scale, center = layer.flag("scale", True), layer.flag("center", True)
    names = ["gamma"] * scale + ["beta"] * center + ["moving_mean", "moving_variance"]
    given = dict(zip(names, _vectors(layer, names, rows), strict=False))
    epsilon = _number(layer, "epsilon", 1e-3)
    wide = {name: weight.astype(np.float64) for name, weight in given.items()}
    factor = wide.get("gamma", 1.0) / np.sqrt(wide["moving_variance"] + epsilon)
    offset = wide.get("beta", 0.0) - wide["moving_mean"] * factor
    if rows is not None:
        return by_step(layer, lambda _, x, f, o: x * f + o, [factor.reshape(rows), offset.reshape(rows)])
    kernel = scale_and_shift(layer, factor, offset)
    return stateless(layer, lambda xp, x: x * xp.asarray(factor, x.dtype) + xp.asarray(offset, x.dtype), kernel)


def _rows(layer: Layer) -> tuple[int, int] | None:
    """(steps, numbers a step) of parameters that differ from step to step; None where they do not."""
    axis = layer.config.get("axis", -1)
    over_time = layer.kind == "sequence" and not layer.is_distributed and axis in (1, -2)
    if not over_time and not (layer.kind == "flat" and axis in (-1, 1)):
        _over_features(layer)
        return None
    return layer.length("it has numbers for each step"), 1 if over_time else layer.width


def layer_normalization(layer: Layer) -> Node:
    """(x - mean) / sqrt(variance + epsilon), both of the step's features."""
    _over_features(layer)
    # Keras' `rms_scaling` divides by the deviation, and does not centre; RMSNormalization is another thing.
    only_scaled = layer.flag("rms_scaling")
    scale, center = layer.flag("scale", True) or only_scaled, layer.flag("center", True) and not only_scaled
    names = ["gamma"] * scale + ["beta"] * center
    given = dict(zip(names, _vectors(layer, names), strict=False))
    epsilon = _number(layer, "epsilon", 1e-3)

    def function(xp: Any, x: Any) -> Any:
        centred = x - xp.mean(x, axis=-1, keepdims=True)
        y = (x if only_scaled else centred) / xp.sqrt(xp.mean(centred * centred, axis=-1, keepdims=True) + epsilon)
        return y * given.get("gamma", 1.0) + given.get("beta", 0.0)

    return stateless(layer, function)


def rms_normalization(layer: Layer) -> Node:
    """x / sqrt(mean of squares + epsilon), times a scale."""
    _over_features(layer)
    (scale,) = _vectors(layer, ["scale"])
    epsilon = _number(layer, "epsilon", DENOMINATOR_MIN)
    return stateless(layer, lambda xp, x: x / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + epsilon) * scale)


def unit_normalization(layer: Layer) -> Node:
    """Length 1 over the features."""
    _over_features(layer)
    return stateless(layer, lambda xp, x: x / xp.sqrt(xp.maximum(xp.sum(x * x, axis=-1, keepdims=True), SQUARES_MIN)))


def normalization(layer: Layer) -> Node:
    """With the statistics that it was adapted to, or that its configuration gives: of all numbers, of each feature, of
    each step, or of each feature at each step."""
    sizes = _kept_sizes(layer)
    if layer.config.get("mean") is not None:
        mean, variance = (_given(layer, key, tuple(sizes.values())) for key in ("mean", "variance"))
    else:
        mean, variance = _adapted(layer, tuple(sizes.values()))
    deviation = np.maximum(np.sqrt(variance.astype(np.float64)), DENOMINATOR_MIN)
    function = _denormalised if layer.flag("invert") else _normalised
    if layer.kind == "flat" and sizes:
        sizes = {1: layer.length("it has numbers for each step"), 2: layer.width}
    elif layer.kind != "sequence" or layer.is_distributed or 1 not in sizes:
        return stateless(layer, lambda xp, x: function(xp, x, mean, xp.asarray(deviation, x.dtype)))
    rows = sizes[1], sizes.get(2, 1)
    return by_step(layer, function, [mean.reshape(rows), deviation.reshape(rows)])


def _normalised(_: Any, x: Any, mean: Any, deviation: Any) -> Any:
    return (x - mean) / deviation


def _denormalised(_: Any, x: Any, mean: Any, deviation: Any) -> Any:
    return mean + x * deviation


def _kept_sizes(layer: Layer) -> dict[int, int]:
    """Of the axes of which each place has a mean of its own."""
    axis = layer.config.get("axis", -1)
    axes = ([] if axis is None else [axis]) if not isinstance(axis, list) else axis
    if not axes or (layer.kind != "flat" and layer.is_over_features(axes)):
        return {2: layer.width} if axes else {}
    rank = 3 if layer.kind == "sequence" and not layer.is_distributed else 2
    found = [each + rank if type(each) is int and each < 0 else each for each in axes]
    if layer.is_at_positions or any(each not in (1, rank - 1) for each in found):
        raise layer.refused("it has numbers for each sequence, or for places it does not say", "normalise over axis=-1")
    steps = layer.length("it has numbers for each step")
    if layer.kind == "flat":
        return {1: steps * layer.width}
    return {1: steps, 2: layer.width} if 2 in found else {1: steps}


def _adapted(layer: Layer, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Its weights; the third counts what they are the mean and variance of."""
    found = [weight.shape for weight in layer.weights[:2]]
    if found != [shape, shape]:
        reason = f"its configuration implies mean and variance of {shape}, the file has {found or 'none'}"
        raise layer.refused(reason, WAY_OUT)
    return layer.weights[0], layer.weights[1]


def _given(layer: Layer, key: str, shape: tuple[int, ...]) -> Array:
    try:
        value = np.asarray(layer.config.get(key), np.float32)
        value = np.broadcast_to(value.reshape(value.shape[max(0, value.ndim - len(shape)) :]), shape)
    except (TypeError, ValueError) as error:
        raise layer.refused(f"{key} is no list of numbers of the shape {shape}", WAY_OUT) from error
    if not np.isfinite(value).all():
        raise layer.refused(f"{key} has numbers that are not finite", WAY_OUT)
    return value
