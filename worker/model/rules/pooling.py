"""Summaries of all steps so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from worker.model.program import Node
from worker.model.rules.context import OR_BUFFER, Layer
from worker.model.rules.positions import average_of_positions


def _check_sequence(layer: Layer) -> None:
    layer.check_sequence()
    layer.check_channels_last()
    if layer.flag("keepdims"):
        raise layer.refused("it keeps the dimension of time", f"build the model without keepdims{OR_BUFFER}")


def _over_time(layer: Layer) -> None:
    """Of an operation: Raises ModelNotStreamable unless its axis is time."""
    if layer.config.get("axis") not in (1, [1], -2, [-2]):
        way_out = f"reduce over axis=1, or use a layer that works on each step{OR_BUFFER}"
        raise layer.refused("its axis is not time", way_out)


def global_average(layer: Layer) -> Node:
    """State: the sum and how many steps are in it; masked steps are left out. Of a single step that is a grid: the
    average of its positions, without a state."""
    if layer.shape is not None:
        return average_of_positions(layer)
    _check_sequence(layer)
    width = layer.width

    def step(xp: Any, x: Any, state: Any, steps: Any) -> Any:
        del steps
        after = xp.concatenate([state[:, :width] + x, state[:, width:] + 1], axis=1)
        return held(xp, after), after

    def held(xp: Any, state: Any) -> Any:
        del xp
        # 0 / 0 where every step was masked, as in Keras.
        return state[:, :width] / state[:, width:]

    def whole(x: Any) -> Any:
        return np.cumsum(x, axis=1) / np.arange(1, x.shape[1] + 1)[:, None]

    def whole_masked(x: Any, mask: Any) -> Any:
        weights = mask[:, :, None].astype(x.dtype)
        return np.cumsum(x * weights, axis=1) / np.cumsum(weights, axis=1)

    return Node(
        layer.name, layer.class_name, "last", width, width + 1, step, whole, held=held, whole_masked=whole_masked
    )


def _running(layer: Layer, together: str, accumulate: Callable[[Any], Any]) -> Node:
    """State: the result so far; `together` names the function that adds a step to it."""
    _check_sequence(layer)

    def step(xp: Any, x: Any, state: Any, steps: Any) -> Any:
        after = xp.where(steps[:, None] == 1, x, getattr(xp, together)(state, x))
        return after, after

    return Node(
        layer.name, layer.class_name, "last", layer.width, layer.width, step, accumulate, held=lambda _, state: state
    )


def global_max(layer: Layer) -> Node:
    """Masked steps count as well: Keras ignores the mask here."""
    return _running(layer, "maximum", lambda x: np.maximum.accumulate(x, axis=1))


def mean_over_time(layer: Layer) -> Node:
    _over_time(layer)
    return global_average(layer)


def max_over_time(layer: Layer) -> Node:
    _over_time(layer)
    return global_max(layer)


def min_over_time(layer: Layer) -> Node:
    _over_time(layer)
    return _running(layer, "minimum", lambda x: np.minimum.accumulate(x, axis=1))


def sum_over_time(layer: Layer) -> Node:
    _over_time(layer)
    return _running(layer, "add", lambda x: np.cumsum(x, axis=1))
