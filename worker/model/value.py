"""What flows between the layers of a model that is being compiled."""

from __future__ import annotations

from dataclasses import dataclass

from worker.model.program import ALWAYS
from worker.model.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Value:
    """What flows between layers. `number` is the program's; `schedule` says at which steps it is new.

    `exact_from`: the first step at which it is the trained layer's. `masks`: the values of the `Masking` layers whose
    mask it has; see masks.py. `parts` and `padding` are of kinds that only the layer after can step; see together.py.
    """

    number: int
    width: int
    kind: str
    schedule: Schedule = ALWAYS
    exact_from: int = 1
    masks: frozenset[int] = frozenset()
    parts: tuple[Value, ...] = ()
    padding: int = 0
    is_static: bool = False
    """Whether it is of static inputs only."""
    shape: tuple[int, ...] | None = None
    """Of one step, where it is not one row of `width` features: () for an id, (H, W, C) for a grid in C order."""

    @property
    def masked(self) -> bool:
        return bool(self.masks)
