"""Layers whose parameters or mask depend on the step: Masking, PReLU, and normalisation over time by `by_step`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from worker.model.files.weights import WAY_OUT
from worker.model.program import Node
from worker.model.rules.context import Layer, shown
from worker.model.rules.elementwise import stateless


def masking(layer: Layer) -> Node:
    """Steps whose features all have `mask_value` become zeros and are left out by what follows."""
    layer.check_sequence()
    value = _mask_value(layer)

    def counts(xp: Any, x: Any) -> Any:
        return xp.any(x != xp.asarray(value, x.dtype), axis=-1)

    node = stateless(layer, lambda xp, x: xp.where(counts(xp, x)[..., None], x, xp.asarray(0, x.dtype)))
    return replace(node, mask=counts, mask_value=value)


def _mask_value(layer: Layer) -> float:
    """As samples have it, in float32. Raises ModelNotStreamable for what is no number."""
    value = layer.config.get("mask_value", 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 3e38:
        raise layer.refused(f"mask_value is {shown(value)}, not a number", WAY_OUT)
    return float(np.float32(value))


def prelu(layer: Layer) -> Node:
    """max(x, 0) + alpha · min(x, 0); one alpha for each step and feature, or one for all of those in `shared_axes`."""
    steps, width = layer.timesteps or 0, layer.width
    known: list[tuple[int, ...]] = [(width,), (1,)]
    if layer.kind == "flat":
        known = [(steps * width,), (1,)]
    elif layer.kind == "sequence" and not layer.is_distributed:
        known = [(1, width), (steps, width), (1, 1), (steps, 1)]
    found = [weight.shape for weight in layer.weights]
    if len(found) != 1 or found[0] not in known:
        way_out = "train with PReLU(shared_axes=[1]), or set sequence.length where the file does not fix it"
        raise layer.refused(f"its slopes are {found or 'none'}, not {known[0]} or {known[1]}", way_out)
    alpha = layer.weights[0].reshape(-1, 1 if found[0][-1] == 1 else width)
    return by_step(layer, lambda xp, x, slopes: xp.maximum(x, 0) + slopes * xp.minimum(x, 0), [alpha])


def by_step(layer: Layer, function: Callable[..., Any], parameters: list[Any]) -> Node:
    """A node of `function(xp, x, *parameters)`; each parameter is (T, F) or (T, 1), or of one row for all steps."""
    rows = [np.ascontiguousarray(each, np.float32) for each in parameters]

    def step(xp: Any, x: Any, state: Any, steps: Any) -> Any:
        now = [xp.take(each, steps - 1, axis=0, mode="clip") if len(each) > 1 else each for each in rows]
        return function(xp, x, *now), state

    def whole(x: Any) -> Any:
        return function(np, x, *[each[: x.shape[1]] if len(each) > 1 else each for each in rows])

    return Node(layer.name, layer.class_name, layer.kind, layer.width, 0, step, whole, layer.exact())
