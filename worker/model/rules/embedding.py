"""Embedding: a sample is one number, and the layer answers with that row of its table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from worker.model.files.weights import WAY_OUT
from worker.model.inputs import IDS_MAX, are_ids
from worker.model.program import Node
from worker.model.rules.context import UNITS_MAX, Layer, is_whole, shown
from worker.model.rules.elementwise import stateless


def embedding(layer: Layer) -> Node:
    """No state. A number that is no id is answered with NaN, which ends the sequence: Keras would take another row, or
    fail for the whole batch. `mask_zero` masks the steps of id 0, as `Masking` does."""
    if layer.kind != "sequence" or layer.shape != ():
        way_out = "give it an input of shape (T,) that only Embedding layers take"
        raise layer.refused("what reaches it is not one id a step", way_out)
    count, width = layer.config.get("input_dim"), layer.config.get("output_dim")
    if not is_whole(count, IDS_MAX) or not is_whole(width, UNITS_MAX):
        reason = f"input_dim is {shown(count)} and output_dim {shown(width)}, not whole numbers from 1 on"
        raise layer.refused(f"{reason}; ids are exact in float32 up to {IDS_MAX}", "use a smaller vocabulary")
    found = [weight.shape for weight in layer.weights]
    if found != [(count, width)]:
        raise layer.refused(
            f"its configuration implies a table of {(count, width)}, the file has {found or 'none'}", WAY_OUT
        )
    table = layer.weights[0]
    ids_count, features = table.shape

    def row(xp: Any, x: Any) -> Any:
        ids = x[:, 0]
        known = are_ids(xp, ids, ids_count)
        rows = xp.take(table, xp.asarray(xp.where(known, ids, 0), np.int32), axis=0)
        return xp.where(known[:, None], rows, xp.asarray(np.nan, rows.dtype))

    def whole(x: Any) -> Any:
        ids = x[..., 0]
        out = np.full((*ids.shape, features), np.nan)
        for each in np.unique(ids).tolist():
            if each.is_integer() and 0 <= each < ids_count:
                out[ids == each] = table[int(each)]
        return out

    node = replace(stateless(layer, row, width=features), whole=whole)
    if not layer.flag("mask_zero"):
        return node
    return replace(node, mask=lambda _, x: x[..., 0] != 0, mask_value=0.0)
