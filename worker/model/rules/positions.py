"""Layers on steps that are grids: the same at each position, over the last dimension, and the average of all positions.

A step of shape (H, W, C) is a row of H · W · C numbers in C order, as `Flatten` makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

from worker.model.program import Node
from worker.model.rules.context import OR_BUFFER, Layer
from worker.model.rules.elementwise import stateless


def at_each_position(layer: Layer, shape: tuple[int, ...], rule: Callable[[Layer], Node]) -> Node:
    """What a stateless rule makes of the last dimension."""
    last = len(shape) + (layer.kind == "sequence" and not layer.is_distributed)
    if layer.config.get("axis", -1) not in (-1, last, [-1], [last]):
        raise layer.refused("its axis is not the last one", f"build the model with axis=-1{OR_BUFFER}")
    inner = rule(replace(layer, config={**layer.config, "axis": -1}, width=shape[-1], shape=None, is_at_positions=True))
    positions = prod(shape[:-1])
    width = positions * inner.width

    def step(xp: Any, x: Any, state: Any, steps: Any) -> Any:
        y, _ = inner.step(xp, xp.reshape(x, (-1, shape[-1])), state, steps)
        return xp.reshape(y, (-1, width)), state

    def whole(x: Any) -> Any:
        y = inner.whole(x.reshape(len(x), -1, shape[-1]))
        return y.reshape(*x.shape[:2], width)

    node = replace(inner, width=width, step=step, whole=whole, kernel=None, in_place=None)
    return replace(node, shape=(*shape[:-1], inner.width))


def average_of_positions(layer: Layer) -> Node:
    """`GlobalAveragePooling` of a step: what it makes of steps together is another rule."""
    rank = 1 if layer.class_name.endswith("1D") else 2
    shape = layer.shape
    if shape is None or len(shape) != rank + 1 or (layer.kind == "sequence" and not layer.is_distributed):
        way_out = "set return_sequences=False in the layer before, or put it into TimeDistributed"
        raise layer.refused(f"what reaches it is no step of {rank + 1} dimensions", way_out)
    layer.check_channels_last()
    if layer.flag("keepdims"):
        raise layer.refused("it keeps the dimensions that it averages", f"build the model without keepdims{OR_BUFFER}")
    positions, channels = prod(shape[:-1]), shape[-1]

    def average(xp: Any, x: Any) -> Any:
        return xp.mean(xp.reshape(x, (-1, positions, channels)), axis=1)

    def whole(x: Any) -> Any:
        return x.reshape(*x.shape[:2], positions, channels).sum(axis=2) / positions

    return replace(stateless(layer, average, width=channels), whole=whole)
