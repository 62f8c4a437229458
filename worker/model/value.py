"""What flows between the layers of a model that is being compiled."""

from __future__ import annotations

from dataclasses import dataclass

from worker.model.program import ALWAYS
from worker.model.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Value:
    """What flows between layers. `number` is the program's; `schedule` says at which steps it is new.

    `exact_from`: the first step at which it is the trained layer's. `masked`: a `Masking` layer is before it. `parts`
    and `padding` are of kinds that only the layer after can step; see together.py.
    """

    number: int
    width: int
    kind: str
    schedule: Schedule = ALWAYS
    exact_from: int = 1
    masked: bool = False
    parts: tuple[Value, ...] = ()
    padding: int = 0
