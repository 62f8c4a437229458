"""Windows over time: convolutions and pooling, causal or valid, with strides and dilation.

State: the samples that the next window begins with, oldest first, and the last answer where not every step has one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from worker.model.files.weights import WAY_OUT, Array
from worker.model.program import Node
from worker.model.rules.activation import activation
from worker.model.rules.context import OR_BUFFER, Layer, shown, weighted
from worker.model.schedule import Schedule

WINDOW_MAX = 1 << 12


def conv1d(layer: Layer) -> Node:
    """`padding` causal or valid."""
    causal = _is_causal(layer, "kernel_size")
    filters, size, stride, dilation = (
        _whole(layer, key) for key in ("filters", "kernel_size", "strides", "dilation_rate")
    )
    groups = _whole(layer, "groups")
    if layer.width % groups or filters % groups:
        raise layer.refused(f"{groups} groups do not divide {layer.width} features into {filters}", WAY_OUT)
    _check_window(layer, size, dilation)
    kernel, bias = weighted(layer, [(size, layer.width // groups, filters)], (filters,))
    kernel = _of_all_features(kernel, groups)
    rows = kernel.reshape(size * layer.width, filters)
    function = activation(layer)

    def answer(xp: Any, window: Any) -> Any:
        return function(xp, xp.reshape(window, (-1, len(rows))) @ rows + bias)

    return windowed(layer, size, stride, dilation, filters, answer, causal)


def _of_all_features(kernel: Array, groups: int) -> Array:
    """A kernel (size, F / groups, filters) of which each group sees its part → (size, F, filters) with zeros."""
    size, features, filters = kernel.shape
    wide = np.zeros((size, groups, features, groups, filters // groups), np.float32)
    for group, part in enumerate(np.split(kernel, groups, axis=-1)):
        wide[:, group, :, group] = part
    return wide.reshape(size, groups * features, filters)


def depthwise_conv1d(layer: Layer) -> Node:
    """Each feature by itself; Keras has it with valid padding only, or `same`."""
    causal = _is_causal(layer, "kernel_size")
    size, stride, dilation = (_whole(layer, key) for key in ("kernel_size", "strides", "dilation_rate"))
    multiplier = _whole(layer, "depth_multiplier")
    filters = layer.width * multiplier
    _check_window(layer, size, dilation)
    kernel, bias = weighted(layer, [(size, layer.width, multiplier)], (filters,))
    function = activation(layer)

    def answer(xp: Any, window: Any) -> Any:
        return function(xp, _each_feature(xp, window, kernel) + bias)

    return windowed(layer, size, stride, dilation, filters, answer, causal)


def separable_conv1d(layer: Layer) -> Node:
    """Depthwise, then a product over the features."""
    causal = _is_causal(layer, "kernel_size")
    filters, size, stride, dilation = (
        _whole(layer, key) for key in ("filters", "kernel_size", "strides", "dilation_rate")
    )
    _check_window(layer, size, dilation)
    between = layer.width * _whole(layer, "depth_multiplier")
    shapes: list[tuple[int, ...]] = [(size, layer.width, between // layer.width), (1, between, filters)]
    depthwise, pointwise, bias = weighted(layer, shapes, (filters,))
    function = activation(layer)

    def answer(xp: Any, window: Any) -> Any:
        return function(xp, _each_feature(xp, window, depthwise) @ pointwise[0] + bias)

    return windowed(layer, size, stride, dilation, filters, answer, causal)


def _each_feature(xp: Any, window: Any, kernel: Any) -> Any:
    """Windows (B, size, F), a kernel (size, F, multiplier) → (B, F · multiplier), those of one feature together."""
    size, features, multiplier = kernel.shape
    repeated = xp.take(window, np.repeat(np.arange(features), multiplier), axis=-1) if multiplier > 1 else window
    return xp.sum(repeated * kernel.reshape(size, features * multiplier), axis=-2)


def max_pooling(layer: Layer) -> Node:
    return _pooling(layer, lambda xp, window: xp.max(window, axis=-2))


def average_pooling(layer: Layer) -> Node:
    return _pooling(layer, lambda xp, window: xp.mean(window, axis=-2))


def _pooling(layer: Layer, answer: Callable[[Any, Any], Any]) -> Node:
    size = _whole(layer, "pool_size")
    stride = size if layer.config.get("strides") is None else _whole(layer, "strides")
    _check_window(layer, size, 1)
    if _is_causal(layer, "pool_size"):
        raise layer.refused("pooling has no causal padding", "build the model with padding='valid'")
    return windowed(layer, size, stride, 1, layer.width, answer)


def cropping(layer: Layer) -> Node:
    """The end of a sequence is known `right` steps later, so the answer lags by so many."""
    left, right = _ends(layer, "cropping")
    return delayed(layer, left, right)


def delayed(
    layer: Layer, left: int, right: int, kind: str = "sequence", columns: slice = slice(None), width: int = 0
) -> Node:
    """Each value `right` steps late, without the first `left`; of its features `columns`, which are `width`."""
    return windowed(
        *(layer, right + 1, 1, 1, width or layer.width, lambda _, window: window[:, 0, columns]),
        skipped=left,
        kind=kind,
    )


def zeros_before(layer: Layer) -> int:
    """Of `ZeroPadding1D`. Raises ModelNotStreamable where it also pads the end."""
    left, right = _ends(layer, "padding")
    if right:
        way_out = f"train with ZeroPadding1D(({left + right}, 0)){OR_BUFFER}"
        raise layer.refused("zeros after the sequence are known only at its end", way_out)
    return left


def _ends(layer: Layer, key: str) -> tuple[int, int]:
    """A number for both ends, or a pair."""
    layer.check_sequence()
    layer.check_channels_last()
    value = layer.config.get(key, 1)
    both = [value, value] if type(value) is int else value
    if not isinstance(both, list) or len(both) != 2 or not all(type(n) is int and 0 <= n <= WINDOW_MAX for n in both):
        raise layer.refused(f"{key} is {shown(value)}, not two whole numbers up to {WINDOW_MAX}", WAY_OUT)
    return both[0], both[1]


def _is_causal(layer: Layer, size: str) -> bool:
    """`size` is the key of the window's."""
    layer.check_sequence()
    layer.check_channels_last()
    padding = layer.config.get("padding", "valid")
    if padding == "same" and _whole(layer, size) == 1:
        return False
    if padding == "same":
        # Keras has causal padding in Conv1D only.
        instead = "causal" if layer.class_name == "Conv1D" else "valid"
        way_out = f"train the model with padding='{instead}'{OR_BUFFER}"
        raise layer.refused("padding='same' looks at later steps", way_out)
    if padding not in ("valid", "causal"):
        raise layer.refused(f"padding is {shown(padding)}", WAY_OUT)
    return bool(padding == "causal")


def _check_window(layer: Layer, size: int, dilation: int) -> None:
    length = (size - 1) * dilation + 1
    if length > WINDOW_MAX:
        raise layer.refused(f"its window is {length} steps long, {WINDOW_MAX} are allowed", "use a smaller window")


def windowed(
    layer: Layer,
    size: int,
    stride: int,
    dilation: int,
    width: int,
    answer: Callable[[Any, Any], Any],
    causal: bool = False,
    skipped: int = 0,
    kind: str = "sequence",
) -> Node:
    """`answer` takes an array namespace and windows (B, size, F), oldest first, and gives (B, width); it begins
    `skipped` windows late."""
    features, kept = layer.width, (size - 1) * dilation
    padding = layer.padding + kept * causal
    if padding > kept:
        raise layer.refused(
            f"{padding} zeros before the sequence are more than its window reaches back",
            f"pad by at most {kept}{OR_BUFFER}",
        )
    schedule = Schedule(kept + 1 - padding + skipped, stride)
    holds = stride > 1 or layer.waits
    floats = kept * features

    def step(xp: Any, x: Any, state: Any, steps: Any) -> Any:
        window = x[:, None]
        if kept:
            window = xp.concatenate([xp.reshape(state[:, :floats], (-1, kept, features)), window], axis=1)
        y = answer(xp, window[:, ::dilation])
        parts = [xp.reshape(window[:, 1:], (-1, floats))] if kept else []
        if holds:
            y = xp.where(schedule.is_new(steps)[:, None], y, held(xp, state))
            parts.append(y)
        return y, xp.concatenate(parts, axis=1) if parts else state

    def held(xp: Any, state: Any) -> Any:
        del xp
        return state[:, floats:]

    def whole(x: Any) -> Any:
        padded = np.concatenate([np.zeros((len(x), padding, features)), x], axis=1)
        windows = np.lib.stride_tricks.sliding_window_view(padded, kept + 1, axis=1) if padded.shape[1] > kept else None
        if windows is None:
            return np.zeros((len(x), 0, width))
        windows = np.moveaxis(windows, -1, -2)[:, skipped::stride, ::dilation]
        return answer(np, windows.reshape(-1, size, features)).reshape(*windows.shape[:2], width)

    exact = "every step" if schedule.always else f"from step {schedule.first} of its input, every {stride}"
    return Node(
        layer.name,
        layer.class_name,
        kind,
        width,
        floats + width * holds,
        step,
        whole,
        exact,
        schedule=schedule,
        held=held if holds else None,
    )


def _whole(layer: Layer, key: str) -> int:
    """A number, or a list of one; 1 where the file says nothing."""
    value = layer.config.get(key, 1)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    return replace(layer, config={key: value}).whole_number(key)
