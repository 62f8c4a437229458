"""Workspace of an engine: allocated once, because fresh pages cost more than the arithmetic on them."""

from __future__ import annotations

import numpy as np

from worker.core.types import Float32Array


class Scratch:
    """Float32 rows of one width that grow to the largest batch. The next call overwrites them: one thread only."""

    def __init__(self, width: int, fill: float = 0.0) -> None:
        self._width = width
        self._fill = fill
        self._rows = np.empty((0, width), np.float32)

    def rows(self, count: int) -> Float32Array:
        """(count, width); new rows hold `fill`, used rows what was last written to them."""
        if count > len(self._rows):
            self._rows = np.full((count, self._width), self._fill, np.float32)
        return self._rows[:count]
