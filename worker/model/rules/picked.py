"""Parts of a value, by subscripts: one step, all from or up to one, some of the features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from worker.model.files.weights import WAY_OUT
from worker.model.program import Node
from worker.model.rules.context import OR_BUFFER, Layer
from worker.model.rules.convolution import WINDOW_MAX, delayed
from worker.model.rules.elementwise import stateless
from worker.model.schedule import Schedule

ELSE = "it takes out something else than steps or features"
USE = f"use x[:, -1], x[:, 2:] or x[..., :3]{OR_BUFFER}"


def picked(layer: Layer) -> Node:
    """`x[:, i]`, `x[:, a:]`, `x[:, :-b]`, of each at will some features, and `x[..., a:b]` of any value."""
    rank = 3 if layer.kind == "sequence" else 2
    keys = _subscripts(layer, rank)
    if layer.kind == "flat" or _bounds(layer, keys[0]) != (None, None, 1):
        raise layer.refused(ELSE, USE)
    columns, width = _columns(layer, keys[-1])
    if rank == 2:
        return stateless(layer, lambda _, x: x[..., columns], width=width)
    if type(keys[1]) is not int:
        start, stop, every = _bounds(layer, keys[1])
        is_known = 0 <= (start or 0) <= WINDOW_MAX and (stop is None or -WINDOW_MAX <= stop < 0)
        if every != 1 or not is_known:
            raise layer.refused("it takes out other steps than one, or all from or up to one", USE)
        return delayed(layer, start or 0, -(stop or 0), columns=columns, width=width)
    if not -WINDOW_MAX <= keys[1] < WINDOW_MAX:
        raise layer.refused("it takes out a step too far away", USE)
    if keys[1] < 0:
        return delayed(layer, 0, -1 - keys[1], "last", columns, width)
    return _one_step(layer, keys[1] + 1, columns, width)


def _subscripts(layer: Layer, rank: int) -> list[Any]:
    """One for each dimension."""
    keys = layer.config.get("keys")
    keys = keys[0] if isinstance(keys, list) and len(keys) == 1 and isinstance(keys[0], list) else keys
    if not isinstance(keys, list):
        raise layer.refused(ELSE, USE)
    found = list(keys)
    everything = {"class_name": "__slice__", "config": {}}
    dots = [at for at, key in enumerate(found) if isinstance(key, dict) and key.get("class_name") == "__ellipsis__"]
    at = dots[0] if dots else len(found)
    found[at : at + 1] = [everything] * (rank - len(found) + bool(dots))
    if len(dots) > 1 or len(found) != rank:
        raise layer.refused(ELSE, USE)
    return found


def _bounds(layer: Layer, key: Any) -> tuple[int | None, int | None, int]:
    """Of a range: start, stop, step."""
    config = key.get("config") if isinstance(key, dict) and key.get("class_name") == "__slice__" else None
    if not isinstance(config, dict):
        raise layer.refused(ELSE, USE)
    start, stop, every = (config.get(each) for each in ("start", "stop", "step"))
    if any(each is not None and type(each) is not int for each in (start, stop, every)):
        raise layer.refused(ELSE, USE)
    return start, stop, 1 if every is None else every


def _columns(layer: Layer, key: Any) -> tuple[slice, int]:
    """The features that are taken, and how many these are."""
    start, stop, every = _bounds(layer, key)
    width = len(range(*slice(start, stop, every).indices(layer.width))) if every > 0 else 0
    if not width:
        raise layer.refused("it takes out no features, or backwards", WAY_OUT)
    return slice(start, stop, every), width


def _one_step(layer: Layer, number: int, columns: slice, width: int) -> Node:
    """The value of one step, kept from then on."""
    if layer.timesteps is not None and number > layer.timesteps:
        raise layer.refused(f"it takes step {number} of {layer.timesteps}", WAY_OUT)

    def step(xp: Any, x: Any, state: Any, steps: Any) -> Any:
        after = xp.where((steps == number)[:, None], x[:, columns], state)
        return after, after

    def whole(x: Any) -> Any:
        return x[:, number - 1 : number, columns].repeat(max(0, x.shape[1] - number + 1), axis=1)

    node = stateless(layer, lambda _, x: x, width=width)
    return replace(
        node,
        kind="last",
        state_floats=width,
        step=step,
        whole=whole,
        exact=f"from step {number}",
        kernel=None,
        schedule=Schedule(number),
        held=lambda _, state: state,
    )
