"""Layers that put several values of one step together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import Any

from worker.model.program import Node
from worker.model.rules.context import CONSTANT_FIRST, Layer
from worker.model.rules.elementwise import stateless

Merged = Callable[[Any, Any, Any], Any]
"""(xp, values, for each whether it counts (…, 1), None where it has no mask) → the merged value."""


def _elementwise(function: Callable[[Any, Any], Any], merged: Merged | None = None) -> Callable[[Layer], Node]:
    def rule(layer: Layer) -> Node:
        if layer.constant is not None:
            return _with_constant(layer, function, layer.constant)
        if not layer.widths:
            raise layer.refused("it is called with one value", "call it with several values")
        width = max(layer.widths)
        if any(each not in (1, width) for each in layer.widths):
            raise layer.refused(f"its inputs have {', '.join(map(str, layer.widths))} features", "give them one width")
        return replace(stateless(layer, function, width=width), merged=merged if layer.keras_major >= 3 else None)

    return rule


def _with_constant(layer: Layer, function: Callable[[Any, Any], Any], constant: Any) -> Node:
    if layer.config.get(CONSTANT_FIRST) is True:
        return stateless(layer, lambda xp, x: function(xp, (constant, x)))
    return stateless(layer, lambda xp, x: function(xp, (x, constant)))


def _masked_product(xp: Any, values: Any, counts: Any) -> Any:
    """Keras 3: masked factors are 1, and the product is 0 where all of them are masked."""
    factors = [
        value if each is None else xp.where(each, value, xp.asarray(1, value.dtype))
        for value, each in zip(values, counts, strict=True)
    ]
    product = reduce(xp.multiply, factors)
    if any(each is None for each in counts):
        return product
    return xp.where(reduce(xp.logical_or, counts), product, xp.asarray(0, product.dtype))


def _masked_extreme(name: str) -> Merged:
    """Keras 3: what is masked gives way to what is not; masked steps of all values have the first one's."""

    def merged(xp: Any, values: Any, counts: Any) -> Any:
        found, known = values[0], counts[0]
        for value, each in zip(values[1:], counts[1:], strict=True):
            other = value if each is None else xp.where(each, value, found)
            found = getattr(xp, name)(found if known is None else xp.where(known, found, other), other)
            known = None if known is None or each is None else xp.logical_or(known, each)
        return found

    return merged


add = _elementwise(lambda xp, values: reduce(xp.add, values))
subtract = _elementwise(lambda xp, values: reduce(xp.subtract, values))
multiply = _elementwise(lambda xp, values: reduce(xp.multiply, values), _masked_product)
maximum = _elementwise(lambda xp, values: reduce(xp.maximum, values), _masked_extreme("maximum"))
minimum = _elementwise(lambda xp, values: reduce(xp.minimum, values), _masked_extreme("minimum"))
average = _elementwise(lambda xp, values: reduce(xp.add, values) / len(values))

divide = _elementwise(lambda _, values: values[0] / values[1])
power = _elementwise(lambda xp, values: xp.power(values[0], values[1]))


def concatenate(layer: Layer) -> Node:
    """Over the features; over time the second part would follow the whole of the first."""
    last = 2 if layer.kind == "sequence" else 1
    if layer.config.get("axis", -1) not in (-1, last):
        raise layer.refused("it joins its inputs one after the other in time")
    if not layer.widths:
        raise layer.refused("it is called with one value", "call it with several values")
    return stateless(layer, lambda xp, values: xp.concatenate(values, axis=-1), width=sum(layer.widths))
