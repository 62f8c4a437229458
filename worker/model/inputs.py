"""A model's inputs: of several, each is some of a sample's features, one input after the other.

An input of shape (T, F) is a sequence, all of which advance together; one of shape (S,) is static: every step has the
current sample's values of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from worker.core.types import Float32Array
from worker.errors import ModelNotStreamable
from worker.model.rules.context import is_whole, shown

FEATURES_MAX = 1 << 14
TIMESTEPS_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelInput:
    """`width` features of a sample, from the column `first` on."""

    name: str
    first: int
    width: int
    is_static: bool = False

    @property
    def columns(self) -> slice:
        return slice(self.first, self.first + self.width)


def inputs_of(where: str, shapes: Sequence[tuple[str, Any]]) -> tuple[tuple[ModelInput, ...], int | None]:
    """Names and shapes (batch, timesteps, features) or (batch, features) → inputs, and timesteps where one fixes them.

    Raises ModelNotStreamable for any other shape, and for inputs that cannot advance together.
    """
    found = [
        (name, *_checked(where if len(shapes) == 1 else f"input {name[:60]!r} of {where}", shape, len(shapes)))
        for name, shape in shapes
    ]
    lengths = {steps for _, is_static, steps, _ in found if not is_static and steps is not None}
    widths = [features for *_, features in found]
    if len(lengths) > 1:
        raise ModelNotStreamable(
            f"{where} has inputs of {' and '.join(map(str, sorted(lengths)))} timesteps", "give all inputs one length"
        )
    if all(is_static for _, is_static, _, _ in found):
        raise ModelNotStreamable(f"{where} has no input that is a sequence", "serve a sequence model")
    if sum(widths) > FEATURES_MAX:
        raise ModelNotStreamable(f"{where} takes {sum(widths)} features", f"{FEATURES_MAX} are allowed")
    firsts = accumulate(widths, initial=0)
    inputs = [
        ModelInput(name, first, features, is_static)
        for (name, is_static, _, features), first in zip(found, firsts, strict=False)
    ]
    return tuple(inputs), next(iter(lengths), None)


def split(samples: Float32Array, inputs: Sequence[ModelInput]) -> list[Float32Array]:
    """Samples (N, T, F) → what each input takes: (N, T, F_i), or (N, S_i) of the last step."""
    return [samples[:, -1, each.columns] if each.is_static else samples[:, :, each.columns] for each in inputs]


def _checked(where: str, shape: Any, count: int) -> tuple[bool, int | None, int]:
    """(is it static, timesteps, features)."""
    if isinstance(shape, list) and len(shape) == 1 and isinstance(shape[0], list):
        shape = shape[0]
    if not isinstance(shape, list | tuple) or (len(shape) != 3 and not (len(shape) == 2 and count > 1)):
        other = " or (batch, features)" if count > 1 else ""
        raise ModelNotStreamable(
            f"{where} takes input of {len(shape) if isinstance(shape, list | tuple) else 'unknown'} dimensions, "
            f"not (batch, timesteps, features){other}",
            "serve a built model whose input are samples over time, no flat windows (Reshape) or words (Embedding)",
        )
    steps, features = shape[1] if len(shape) == 3 else None, shape[-1]
    if not is_whole(features, FEATURES_MAX) or not (steps is None or is_whole(steps, TIMESTEPS_MAX)):
        raise ModelNotStreamable(
            f"{where} takes {shown(steps)} timesteps of {shown(features)} features",
            f"serve a model of 1 to {FEATURES_MAX} features and at most {TIMESTEPS_MAX} timesteps",
        )
    return len(shape) == 2, steps, features
