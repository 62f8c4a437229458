"""Layers that put several values of one step together."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from worker.model.program import Node
from worker.model.rules.context import Layer


def _merge(layer: Layer, width: int, function: Callable[[Any], Any]) -> Node:
    def step(x: Any, state: Any, steps: Any) -> Any:
        del state, steps
        return function(x)

    return Node(layer.name, layer.class_name, layer.kind, width, 0, step, function, layer.exact())


def _elementwise(function: Callable[[Any], Any]) -> Callable[[Layer], Node]:
    def rule(layer: Layer) -> Node:
        if not layer.widths:
            raise layer.refused("it is called with one value", "call it with several values")
        width = max(layer.widths)
        if any(each not in (1, width) for each in layer.widths):
            raise layer.refused(f"its inputs have {', '.join(map(str, layer.widths))} features", "give them one width")
        return _merge(layer, width, function)

    return rule


add = _elementwise(lambda values: reduce(np.add, values))
subtract = _elementwise(lambda values: reduce(np.subtract, values))
multiply = _elementwise(lambda values: reduce(np.multiply, values))
maximum = _elementwise(lambda values: reduce(np.maximum, values))
minimum = _elementwise(lambda values: reduce(np.minimum, values))
average = _elementwise(lambda values: reduce(np.add, values) / values[0].dtype.type(len(values)))


def concatenate(layer: Layer) -> Node:
    """Over the features; over time the second part would follow the whole of the first."""
    last = 2 if layer.kind == "sequence" else 1
    if layer.config.get("axis", -1) not in (-1, last):
        raise layer.refused("it joins its inputs one after the other in time")
    if not layer.widths:
        raise layer.refused("it is called with one value", "call it with several values")
    return _merge(layer, sum(layer.widths), lambda values: np.concatenate(values, axis=-1))
