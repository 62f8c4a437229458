"""Windows over time: convolutions and pooling, causal or valid, with strides and dilation.

State: the samples that the next window begins with, oldest first, and the last answer where not every step has one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from worker.model.activations import activation
from worker.model.files.weights import WAY_OUT
from worker.model.program import Node
from worker.model.rules.context import Layer, is_whole, shown, weighted
from worker.model.schedule import Schedule

WINDOW_MAX = 1 << 12
FILTERS_MAX = 1 << 16


def conv1d(layer: Layer) -> Node:
    """`padding` causal or valid."""
    causal = _is_causal(layer)
    filters, size, stride, dilation = (
        _whole(layer, key) for key in ("filters", "kernel_size", "strides", "dilation_rate")
    )
    if layer.config.get("groups", 1) != 1:
        raise layer.refused("groups are not supported", "build the model with groups=1")
    _check_window(layer, size, dilation)
    kernel, bias = weighted(layer, [(size, layer.width, filters)], (filters,))
    function = activation(layer.config.get("activation"), layer.name, layer.keras_major)

    def answer(xp: Any, window: Any) -> Any:
        """(…, size, F) → (…, filters)."""
        return function(xp, xp.einsum("...kf,kfo->...o", window, kernel) + bias)

    return _windowed(layer, size, stride, dilation, filters, answer, causal)


def depthwise_conv1d(layer: Layer) -> Node:
    """Each feature by itself; Keras has it with valid padding only, or `same`."""
    causal = _is_causal(layer)
    size, stride, dilation = (_whole(layer, key) for key in ("kernel_size", "strides", "dilation_rate"))
    multiplier = _whole(layer, "depth_multiplier")
    filters = layer.width * multiplier
    _check_window(layer, size, dilation)
    kernel, bias = weighted(layer, [(size, layer.width, multiplier)], (filters,))
    function = activation(layer.config.get("activation"), layer.name, layer.keras_major)

    def answer(xp: Any, window: Any) -> Any:
        return function(xp, _each_feature(xp, window, kernel) + bias)

    return _windowed(layer, size, stride, dilation, filters, answer, causal)


def separable_conv1d(layer: Layer) -> Node:
    """Depthwise, then a product over the features."""
    causal = _is_causal(layer)
    filters, size, stride, dilation = (
        _whole(layer, key) for key in ("filters", "kernel_size", "strides", "dilation_rate")
    )
    _check_window(layer, size, dilation)
    between = layer.width * _whole(layer, "depth_multiplier")
    shapes: list[tuple[int, ...]] = [(size, layer.width, between // layer.width), (1, between, filters)]
    depthwise, pointwise, bias = weighted(layer, shapes, (filters,))
    function = activation(layer.config.get("activation"), layer.name, layer.keras_major)

    def answer(xp: Any, window: Any) -> Any:
        return function(xp, _each_feature(xp, window, depthwise) @ pointwise[0] + bias)

    return _windowed(layer, size, stride, dilation, filters, answer, causal)


def _each_feature(xp: Any, window: Any, kernel: Any) -> Any:
    """Windows (…, size, F), a kernel (size, F, multiplier) → (…, F · multiplier), those of one feature together."""
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
    if _is_causal(layer):
        raise layer.refused("pooling has no causal padding", "build the model with padding='valid'")
    return _windowed(layer, size, stride, 1, layer.width, answer, causal=False)


def _is_causal(layer: Layer) -> bool:
    if layer.kind != "sequence":
        raise layer.refused("no sequence reaches it", "set return_sequences=True in the layer before")
    if layer.config.get("data_format", "channels_last") not in (None, "channels_last"):
        raise layer.refused("it takes channels first", "build the model with data_format='channels_last'")
    padding = layer.config.get("padding", "valid")
    if padding == "same":
        raise layer.refused(
            "padding='same' looks at later steps", "train the model with padding='causal', or --mode buffer"
        )
    if padding not in ("valid", "causal"):
        raise layer.refused(f"padding is {shown(padding)}", WAY_OUT)
    return bool(padding == "causal")


def _check_window(layer: Layer, size: int, dilation: int) -> None:
    length = (size - 1) * dilation + 1
    if length > WINDOW_MAX:
        raise layer.refused(f"its window is {length} steps long, {WINDOW_MAX} are allowed", "use a smaller window")


def _windowed(
    layer: Layer, size: int, stride: int, dilation: int, width: int, answer: Callable[[Any, Any], Any], causal: bool
) -> Node:
    """`answer` takes an array namespace and windows (…, size, F), oldest first."""
    features, kept = layer.width, (size - 1) * dilation
    schedule = Schedule(1 if causal else kept + 1, stride)
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
        padded = np.concatenate([np.zeros((len(x), kept if causal else 0, features)), x], axis=1)
        windows = np.lib.stride_tricks.sliding_window_view(padded, kept + 1, axis=1) if padded.shape[1] > kept else None
        if windows is None:
            return np.zeros((len(x), 0, width))
        return answer(np, np.moveaxis(windows, -1, -2)[:, ::stride, ::dilation])

    exact = "every step" if schedule.always else f"from step {schedule.first} of its input, every {stride}"
    return Node(
        layer.name,
        layer.class_name,
        "sequence",
        width,
        floats + width * holds,
        step,
        whole,
        exact,
        schedule=schedule,
        held=held if holds else None,
    )


def _whole(layer: Layer, key: str) -> int:
    """A number, or a list of one."""
    value = layer.config.get(key, 1)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not is_whole(value, FILTERS_MAX):
        raise layer.refused(f"{key} is {shown(value)}, not a whole number from 1 to {FILTERS_MAX}", WAY_OUT)
    return int(value)
