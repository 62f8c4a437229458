"""A forecast that holds has increments of mean 0 and slope 0; one that does not is seen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from worker.core.forecast_drift import ForecastDrift


def martingale(paths: int, steps: int, seed: int):
    """E[heads at the end | tosses so far] of whether a walk of fair steps ends above 0."""
    generator = np.random.default_rng(seed)
    walk = np.cumsum(generator.standard_normal((paths, steps)), axis=1)
    left = np.sqrt(np.maximum(steps - np.arange(1, steps + 1), 1e-12))
    return np.vectorize(lambda z: 0.5 * (1 + math.erf(z / math.sqrt(2))))(walk / left).astype(np.float32)


def test_a_martingale_has_neither_mean_nor_slope():
    forecasts = martingale(4000, 10, 1)
    drift = ForecastDrift(window=10**9)
    for t in range(9):
        drift.add(forecasts[:, t], forecasts[:, t + 1])
    assert abs(drift.mean) < 0.003
    assert abs(drift.slope) < 0.02


def test_forecasts_that_begin_too_high_and_too_extreme_are_seen():
    forecasts = martingale(4000, 10, 2)
    extreme = np.clip((forecasts - 0.5) * 1.8 + 0.7, 0, 1)
    drift = ForecastDrift(window=10**9)
    drift.add(extreme[:, 4], forecasts[:, 5])
    assert drift.mean < -0.05
    assert drift.slope < -0.1


def test_moments_are_the_usual_ones():
    generator = np.random.default_rng(3)
    before, after = generator.random(500).astype(np.float32), generator.random(500).astype(np.float32)
    drift = ForecastDrift(window=10**12)
    drift.add(before[:200], after[:200])
    drift.add(before[200:], after[200:])
    increments = after.astype(np.float64) - before
    assert drift.mean == pytest.approx(increments.mean(), rel=1e-6)
    assert drift.slope == pytest.approx(np.polyfit(before, increments, 1)[0], rel=1e-5)


def test_old_increments_are_forgotten_and_missing_numbers_left_out():
    drift = ForecastDrift(window=100)
    assert math.isnan(drift.mean)
    drift.add(np.zeros(50, np.float32), np.ones(50, np.float32))
    drift.add(np.full(100, 0.5, np.float32), np.full(100, 0.25, np.float32))
    assert drift.mean == pytest.approx(-0.25)
    drift.add(np.array([np.nan], np.float32), np.array([1.0], np.float32))
    assert drift.mean == pytest.approx(-0.25)
    assert math.isnan(drift.slope)
