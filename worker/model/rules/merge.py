"""Layers that put several values of one step together."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from worker.model.program import Node
from worker.model.rules.context import Layer
from worker.model.rules.elementwise import stateless


def _elementwise(function: Callable[[Any, Any], Any]) -> Callable[[Layer], Node]:
    def rule(layer: Layer) -> Node:
        if not layer.widths:
            raise layer.refused("it is called with one value", "call it with several values")
        width = max(layer.widths)
        if any(each not in (1, width) for each in layer.widths):
            raise layer.refused(f"its inputs have {', '.join(map(str, layer.widths))} features", "give them one width")
        return stateless(layer, function, width=width)

    return rule


add = _elementwise(lambda xp, values: reduce(xp.add, values))
subtract = _elementwise(lambda xp, values: reduce(xp.subtract, values))
multiply = _elementwise(lambda xp, values: reduce(xp.multiply, values))
maximum = _elementwise(lambda xp, values: reduce(xp.maximum, values))
minimum = _elementwise(lambda xp, values: reduce(xp.minimum, values))
average = _elementwise(lambda xp, values: reduce(xp.add, values) / len(values))


def concatenate(layer: Layer) -> Node:
    """Over the features; over time the second part would follow the whole of the first."""
    last = 2 if layer.kind == "sequence" else 1
    if layer.config.get("axis", -1) not in (-1, last):
        raise layer.refused("it joins its inputs one after the other in time")
    if not layer.widths:
        raise layer.refused("it is called with one value", "call it with several values")
    return stateless(layer, lambda xp, values: xp.concatenate(values, axis=-1), width=sum(layer.widths))
