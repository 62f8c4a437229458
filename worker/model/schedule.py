"""At which steps of the input a value in the middle of a model is new: strides and windows skip some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Schedule:
    """New at the steps first, first + every, first + 2 every, …; steps are counted from 1."""

    first: int = 1
    every: int = 1

    @property
    def always(self) -> bool:
        return self.first == 1 and self.every == 1

    def then(self, first: int, every: int) -> Schedule:
        """Of a layer that answers its input's `first`-th new value and every `every`-th after it."""
        return Schedule(self.first + (first - 1) * self.every, self.every * every)

    def is_new(self, steps: Any) -> Any:
        """steps (B,) → bool (B,)."""
        return (steps >= self.first) & ((steps - self.first) % self.every == 0)

    def count(self, xp: Any, steps: Any) -> Any:
        """steps (B,) → how many new values there were up to them; at least 1, so that it can be an index."""
        return xp.maximum((steps - self.first) // self.every + 1, 1)

    def length(self, timesteps: int | None) -> int | None:
        """How many new values a sequence of so many steps gives."""
        if timesteps is None:
            return None
        return max(0, (timesteps - self.first) // self.every + 1)

    def picked(self, whole: Any) -> Any:
        """(N, T, …) → its new values only."""
        return whole[:, self.first - 1 :: self.every]

    def held(self, new: Any, timesteps: int) -> Any:
        """New values (N, T', F) → (N, T, F): each stays until the next one; zeros before the first."""
        at = (np.arange(1, timesteps + 1) - self.first) // self.every
        spread = (
            new[:, np.clip(at, 0, max(new.shape[1] - 1, 0))]
            if new.shape[1]
            else np.zeros((len(new), timesteps, new.shape[2]))
        )
        return np.where((at >= 0)[None, :, None], spread, 0)
