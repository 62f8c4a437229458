"""An engine that keeps the states it stepped to itself, as one on a device does, around any stepper."""

from __future__ import annotations

from typing import Any

import numpy as np


class HoldingStepper:
    """`states` are only read where nothing is held, and only written when they are fetched."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.features, self.state_size, self.columns = inner.features, inner.state_size, inner.columns
        self.releases_lock = inner.releases_lock
        self.held: dict[int, Any] = {}

    def step_batch(self, slots: Any, features: Any, states: Any, steps: Any) -> Any:
        mine = np.full(states.shape, np.nan, np.float32)
        for slot in set(slots.tolist()):
            mine[slot] = self.held.get(slot, states[slot])
        logits = self.inner.step_batch(slots, features, mine, steps)
        self.held.update((slot, mine[slot].copy()) for slot in set(slots.tolist()))
        return logits

    def fetch(self, slots: Any, states: Any) -> None:
        for slot in set(slots.tolist()) & set(self.held):
            states[slot] = self.held[slot]

    def forget(self, slots: Any) -> None:
        for slot in slots.tolist():
            self.held.pop(slot, None)
