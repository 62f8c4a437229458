"""Parts of the sample: the inputs of a model that has several, and a static one repeated for every step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from worker.model.inputs import TIMESTEPS_MAX
from worker.model.program import Node
from worker.model.rules.context import OR_BUFFER, Layer, is_whole, shown
from worker.model.rules.elementwise import stateless


def input_layer(layer: Layer) -> Node:
    """Some columns of the sample; `last` where the input is static."""
    first, width = layer.config["first"], layer.config["width"]

    def columns(xp: Any, x: Any) -> Any:
        del xp
        return x[..., first : first + width]

    kind = "last" if layer.config["is_static"] else "sequence"
    return replace(stateless(layer, columns, width=width), kind=kind, shape=layer.config.get("shape"))


def repeat_vector(layer: Layer) -> Node:
    """Of a static input: at every step the sample's own."""
    if not layer.is_static:
        raise layer.refused("a decoder starts after the last step", f"repeat a static input only{OR_BUFFER}")
    count = layer.config.get("n")
    if not is_whole(count, TIMESTEPS_MAX) or count != layer.timesteps:
        way_out = "repeat as many times as the model has timesteps, or set sequence.length to that number"
        raise layer.refused(f"it repeats {shown(count)} times for {shown(layer.timesteps)} timesteps", way_out)
    return replace(stateless(layer, lambda _, x: x), kind="sequence")
