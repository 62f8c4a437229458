"""What a rule is given, and the checks that all rules share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.errors import ModelNotStreamable
from worker.model.files.reading import Array

BUFFER_HINT = "train it again without this layer"


@dataclass(slots=True)
class Layer:
    """One layer of the graph: `width` is what comes in, `shape` whether it is a sequence, a last step or flattened."""

    name: str
    class_name: str
    config: dict[str, Any]
    weights: list[Array]
    width: int
    kind: str
    """sequence | last | flat | end: see compile.py."""
    timesteps: int | None
    keras_major: int

    def refused(self, reason: str, way_out: str = BUFFER_HINT) -> ModelNotStreamable:
        """The error that names this layer."""
        return ModelNotStreamable(f"layer {self.name!r} ({self.class_name}) cannot be stepped: {reason}", way_out)


def shaped(layer: Layer, shapes: list[tuple[int, ...]]) -> list[Array]:
    """The first weights, checked against the shapes that the configuration implies."""
    found = [weight.shape for weight in layer.weights]
    if found[: len(shapes)] != shapes:
        raise ModelNotStreamable(
            f"layer {layer.name!r} ({layer.class_name}) should have weights of shape {shapes}, the file has {found}",
            "save the trained model again with model.save('model.keras')",
        )
    return layer.weights[: len(shapes)]


def biased(layer: Layer, index: int, shape: tuple[int, ...]) -> Array:
    """The bias at `index`, or zeros where `use_bias` is off."""
    if not layer.config.get("use_bias", True):
        return np.zeros(shape, np.float32)
    if len(layer.weights) <= index or layer.weights[index].shape != shape:
        found = [weight.shape for weight in layer.weights]
        raise ModelNotStreamable(
            f"layer {layer.name!r} ({layer.class_name}) should have a bias of shape {shape}, the file has {found}",
            "save the trained model again with model.save('model.keras')",
        )
    return layer.weights[index]
