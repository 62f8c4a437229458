"""What tells one model from another: sha256 of all that its numbers depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from worker.model.files.weights import Array
from worker.model.graph import Graph

IRRELEVANT = ("name", "trainable", "dtype", "batch_shape", "batch_input_shape", "build_config", "seed", "rate")
HELD_BY_LAYERS = ("layer", "cell", "cells", "activation", "recurrent_activation")


def fingerprint_of(graph: Graph, steps: int | None, keras_major: int, weights: Sequence[Array]) -> str:
    """64 hex digits: layer configurations in canonical form, wiring, steps, and the weights in the order of use."""
    places = graph.places
    layers = [
        {"class_name": place.class_name, "config": essential(place.config)}
        | ({"arguments": place.arguments} if place.arguments else {})
        for place in places
    ]
    parts: list[Any] = [layers, steps, keras_major < 3]
    if [place.inputs for place in places] != [(number,) for number in range(len(places))]:
        parts.append([[list(place.inputs) for place in places], list(graph.outputs)])
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    for weight in weights:
        digest.update(str(weight.shape).encode())
        digest.update(np.ascontiguousarray(weight, "<f4").tobytes())
    return digest.hexdigest()


def essential(config: dict[str, Any]) -> dict[str, Any]:
    """What of a layer's configuration changes its numbers."""
    return {
        key: _within(value) if key in HELD_BY_LAYERS else value
        for key, value in config.items()
        if key not in IRRELEVANT and not key.endswith(("_initializer", "_regularizer", "_constraint"))
    }


def _within(value: Any) -> Any:
    """Of what a layer holds: a layer, a cell, a list of cells, an activation."""
    if isinstance(value, list):
        return [_within(each) for each in value]
    config = value.get("config") if isinstance(value, dict) else None
    if not isinstance(config, dict):
        return value
    # The number is another one each time that the model is saved.
    return {key: each for key, each in value.items() if key != "shared_object_id"} | {"config": essential(config)}
