"""A model's inputs: of several, each is some of a sample's features, one input after the other.

An input of shape (T, F) is a sequence, all of which advance together; so is one of shape (T,) that only Embedding
layers take, whose one feature is an id, and one of shape (T, W, C) or (T, H, W, C), whose features are the numbers of a
step in C order. Any other of shape (S,) is static: every step has the current sample's values of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from worker.core.types import BoolArray, Float32Array
from worker.errors import ModelNotStreamable
from worker.model.rules.context import is_whole, shown

FEATURES_MAX = 1 << 14
TIMESTEPS_MAX = 1 << 20
IDS_MAX = 1 << 24
"""Up to it every whole number is one in float32."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """`width` features of a sample, from the column `first` on."""

    name: str
    first: int
    width: int
    is_static: bool = False
    ids: int = 0
    """Where its feature is an id: how many there are, from 0 on."""
    shape: tuple[int, ...] | None = None
    """Of one step, where it is not one row of features; see value.py."""

    @property
    def columns(self) -> slice:
        return slice(self.first, self.first + self.width)


def inputs_of(
    where: str, shapes: Sequence[tuple[str, Any]], ids: Mapping[int, int]
) -> tuple[tuple[ModelInput, ...], int | None]:
    """Names and shapes (batch, timesteps, features) or (batch, features) → inputs, and timesteps where one fixes them.

    `ids`: how many there are, for each input that only Embedding layers take, by its number from 0.
    Raises ModelNotStreamable for any other shape, and for inputs that cannot advance together.
    """
    inputs: list[ModelInput] = []
    lengths: set[int] = set()
    for number, (name, shape) in enumerate(shapes):
        here = where if len(shapes) == 1 else f"input {name[:60]!r} of {where}"
        first = inputs[-1].columns.stop if inputs else 0
        found, steps = _checked(here, ModelInput(name, first, 1, ids=ids.get(number, 0)), shape, len(shapes))
        inputs.append(found)
        lengths |= set() if steps is None else {steps}
    if len(lengths) > 1:
        raise ModelNotStreamable(
            f"{where} has inputs of {' and '.join(map(str, sorted(lengths)))} timesteps", "give all inputs one length"
        )
    if all(each.is_static for each in inputs):
        raise ModelNotStreamable(f"{where} has no input that is a sequence", "serve a sequence model")
    features = inputs[-1].columns.stop
    if features > FEATURES_MAX:
        raise ModelNotStreamable(f"{where} takes {features} features", f"{FEATURES_MAX} are allowed")
    return tuple(inputs), next(iter(lengths), None)


def split(samples: Float32Array, inputs: Sequence[ModelInput]) -> list[Float32Array]:
    """Samples (N, T, F) → what each input takes: (N, T, F_i), (N, T, *shape), or (N, S_i) of the last step."""
    parts = []
    for each in inputs:
        part = samples[:, -1, each.columns] if each.is_static else samples[:, :, each.columns]
        parts.append(part if each.shape is None else part.reshape(*samples.shape[:2], *each.shape))
    return parts


def are_ids(xp: Any, values: Any, count: int) -> Any:
    """Which numbers are whole ones from 0 to `count` - 1, by any array namespace."""
    return (values == xp.floor(values)) & (values >= 0) & (values < count)


def only_ids(samples: Float32Array, inputs: Sequence[ModelInput]) -> BoolArray:
    """(N, T, F) → (N,): whose ids are all ids."""
    found = np.ones(len(samples), np.bool_)
    for each in inputs:
        if each.ids:
            found &= are_ids(np, samples[:, :, each.columns], each.ids).all(axis=(1, 2))
    return found


def takes_whole_numbers(config: dict[str, Any]) -> bool:
    """Whether the configuration of an input says that Keras makes whole numbers or truth values of the samples."""
    return str(config.get("dtype")).startswith(("int", "uint", "bool"))


def _checked(where: str, given: ModelInput, shape: Any, count: int) -> tuple[ModelInput, int | None]:
    """The input with what its shape says, and timesteps."""
    if isinstance(shape, list) and len(shape) == 1 and isinstance(shape[0], list):
        shape = shape[0]
    rank = len(shape) if isinstance(shape, list | tuple) else None
    if rank is None or rank not in ((2, 3, 4, 5) if count > 1 or given.ids else (3, 4, 5)):
        other = " or (batch, features)" if count > 1 else ""
        raise ModelNotStreamable(
            f"{where} takes input of {'unknown' if rank is None else rank} dimensions, "
            f"not (batch, timesteps, features){other}",
            "serve a built model of samples over time, not flat windows (Reshape); ids go to Embedding only",
        )
    given = replace(given, ids=given.ids if rank == 2 else 0, is_static=rank == 2 and not given.ids)
    steps, dimensions = (
        None if given.is_static else shape[1],
        () if given.ids else tuple(shape[1 if given.is_static else 2 :]),
    )
    if not all(is_whole(each, FEATURES_MAX) for each in dimensions) or not (
        steps is None or is_whole(steps, TIMESTEPS_MAX)
    ):
        raise ModelNotStreamable(
            f"{where} takes {shown(steps)} timesteps of {' x '.join(map(shown, dimensions)) or 1} features",
            f"serve a model of 1 to {FEATURES_MAX} features and at most {TIMESTEPS_MAX} timesteps",
        )
    return replace(given, width=prod(dimensions), shape=dimensions if given.ids or rank > 3 else None), steps
