"""What a rule is given, and the checks that all rules share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.errors import ModelNotStreamable
from worker.model.files.weights import WAY_OUT, Array

UNITS_MAX = 1 << 16
CONSTANT_FIRST = "constant_first"
"""Key of the configuration of an operator whose constant stands before the value, as in `1 - x`."""
OR_BUFFER = ", or keep the samples and run all of it by model.mode = 'buffer' (--mode buffer)"
"""The end of a way out; the compiler takes it away where buffer mode would refuse the model, too."""


@dataclass(slots=True)
class Layer:
    """One layer of the graph. `width` is the number of features that reach it, in the form of `kind`."""

    name: str
    class_name: str
    config: dict[str, Any]
    weights: list[Array]
    width: int
    kind: str
    """sequence | last | flat | end: see compile.py."""
    timesteps: int | None
    """Of the values that reach it: where a layer before strides, fewer than the model's."""
    keras_major: int
    widths: tuple[int, ...] = ()
    """Of all values that reach it, where there are several."""
    waits: bool = False
    """Whether there are steps without a new value, or steps that are left out."""
    padding: int = 0
    """Zeros before the sequence that reaches it."""
    is_static: bool = False
    """Whether what reaches it is of static inputs only."""
    is_distributed: bool = False
    """Whether `TimeDistributed` is around it."""
    is_at_positions: bool = False
    """Whether it works on each position of a step that is a grid, whose dimensions it does not know."""
    shape: tuple[int, ...] | None = None
    """Of one step, where it is not one row of features: see value.py."""
    is_operation: bool = False
    """Whether it is a function or an operator, which knows nothing of masks."""
    constant: Any = None
    """What an operator has in the place of a second value: a number, or one for each feature."""
    given_mask: frozenset[tuple[int, float]] | None = None
    """The origins of the mask that the file says it is called with; None where the file leaves that to Keras."""

    def refused(self, reason: str, way_out: str = f"train it without this layer{OR_BUFFER}") -> ModelNotStreamable:
        """The error that names this layer."""
        return ModelNotStreamable(f"layer {self.name!r} ({self.class_name}) cannot be stepped: {reason}", way_out)

    def units(self) -> int:
        """Raises ModelNotStreamable unless it is a whole number within its bounds."""
        return self.whole_number("units")

    def whole_number(self, key: str) -> int:
        """Raises ModelNotStreamable unless it is a whole number from 1 to UNITS_MAX."""
        value = self.config.get(key)
        if not is_whole(value, UNITS_MAX):
            raise self.refused(f"{key} is {shown(value)}, not a whole number from 1 to {UNITS_MAX}", WAY_OUT)
        return int(value)  # type: ignore[arg-type]

    def flag(self, key: str, default: bool = False) -> bool:
        """Raises ModelNotStreamable for what is neither true nor false."""
        value = self.config.get(key, default)
        if not isinstance(value, bool):
            raise self.refused(f"{key} is {shown(value)}, not true or false", WAY_OUT)
        return value

    def is_over_features(self, axis: Any, rank: int | None = None) -> bool:
        """Whether an axis, or all of a list, is the last one; `rank` where it is not that of what reaches the layer."""
        if rank is None and not self.is_at_positions:
            rank = 3 if self.kind == "sequence" and not self.is_distributed else 2
        axes = axis if isinstance(axis, list) else [axis]
        return bool(axes) and all(each == -1 or (rank is not None and each == rank - 1) for each in axes)

    def check_sequence(self) -> None:
        """Raises ModelNotStreamable where what reaches it has no steps."""
        if self.kind != "sequence":
            raise self.refused("no sequence reaches it", "set return_sequences=True in the layer before")

    def check_channels_last(self) -> None:
        """Raises ModelNotStreamable where its features are not the last dimension."""
        if self.config.get("data_format") not in (None, "channels_last"):
            raise self.refused("it takes channels first", "build the model with data_format='channels_last'")

    def length(self, reason: str) -> int:
        """The number of steps, which it needs for this reason. Raises ModelNotStreamable where nothing fixes it."""
        if self.timesteps is None:
            way_out = "set sequence.length, or --timesteps of `lstm-worker check`"
            raise self.refused(f"{reason}, and the file does not fix the number of steps", way_out)
        return self.timesteps

    def weights_of(self, shapes: list[tuple[int, ...]]) -> list[Array]:
        """Its weights. Raises ModelNotStreamable where the file has others."""
        found = [weight.shape for weight in self.weights]
        if found != shapes:
            reason = f"its configuration implies weights of {shapes}, the file has {found or 'none'}"
            raise self.refused(reason, WAY_OUT)
        return self.weights

    def exact(self) -> str:
        """When this layer's output is the trained layer's; of what the model's length matters to, the compiler says."""
        return "the last step" if self.kind in ("flat", "end") else "every step"


def is_whole(value: Any, largest: int) -> bool:
    """Whether a value of a file is a whole number from 1 to `largest`."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest


def shown(value: Any) -> str:
    """A value of a file in an error's one line."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return repr(value if not isinstance(value, str) else value[:40])[:60]


def weighted(layer: Layer, shapes: list[tuple[int, ...]], bias_shape: tuple[int, ...]) -> list[Array]:
    """The layer's weights, of these shapes, and its bias; zeros for the bias where `use_bias` is off.

    Raises ModelNotStreamable where the file has others.
    """
    use_bias = layer.flag("use_bias", True)
    if use_bias:
        return layer.weights_of([*shapes, bias_shape])
    return [*layer.weights_of(shapes), np.zeros(bias_shape, np.float32)]
