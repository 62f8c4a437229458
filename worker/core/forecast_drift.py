"""Whether published forecasts drift: a calibrated probability of what the last step will say is a martingale.

Its increments have the mean 0 whatever is known, so neither their mean nor their slope on the forecast before may move
away from 0 (Foster and Stine 2021). Kept over about the last WINDOW increments.
"""

from __future__ import annotations

import numpy as np

from worker.core.types import Float32Array

WINDOW = 20_000
"""Increments; with a spread of .1 an increment the mean is then known to within .0007."""


class ForecastDrift:
    """Moments of increments, forgetting old ones exponentially."""

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._sums = np.zeros(5)

    def add(self, before: Float32Array, after: Float32Array) -> None:
        """Forecasts (n,) of sequences before and after one sample each; pairs with NaN are left out."""
        known = np.isfinite(before) & np.isfinite(after)
        x, change = before[known].astype(np.float64), (after[known] - before[known]).astype(np.float64)
        count = len(x)
        if not count:
            return
        self._sums *= max(0.0, 1 - count / self._window)
        self._sums += (count, x.sum(), (x * x).sum(), change.sum(), (x * change).sum())

    @property
    def mean(self) -> float:
        """Mean increment a step; NaN before the first."""
        count, _, _, change, _ = self._sums
        return float(change / count) if count else float("nan")

    @property
    def slope(self) -> float:
        """Of the increment on the forecast before it; NaN while all forecasts are alike."""
        count, x, squares, change, product = self._sums
        spread = squares / count - (x / count) ** 2 if count else 0.0
        return float((product / count - x / count * (change / count)) / spread) if spread > 1e-9 else float("nan")
