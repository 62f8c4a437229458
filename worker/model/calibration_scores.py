"""How good early probabilities are: scores by step with bootstrap intervals, and the labelled alternative beside them.

Everything is cross-fitted: no sequence is scored by numbers that were fitted with it. Intervals resample recordings,
since windows of one recording are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.core.types import Float32Array, Float64Array
from worker.model.calibration_fit import folds_of
from worker.model.scores import (
    Score,
    area_under_curve_score,
    calibration_error_score,
    counted_once,
    log_loss_score,
)

RESAMPLES = 300
INTERVAL = (2.5, 97.5)
"""Percentiles of the resampled scores."""
PLATT_PENALTY = 1.0
"""Pull of a slope to 0 and of an intercept to the base rate's, as if one sequence more were known."""
NEWTON_STEPS = 30


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score and its 95 % bootstrap interval, None where all sequences are of one recording."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class StepScores:
    """One contender at one step; `auc` is None without labels."""

    step: int
    contender: str
    log_loss: Estimate
    auc: Estimate | None
    calibration_error: Estimate


def platt_forecasts(odds: Float32Array, labels: npt.NDArray[np.bool_], groups: Sequence[str]) -> Float64Array:
    """Probabilities (N, T) by a logistic regression of the labels on the log-odds (N, T) of each step, cross-fitted."""
    folds = folds_of(odds[:, -1:], groups).of_sequence
    forecasts = np.empty(odds.shape)
    for fold in range(int(folds.max()) + 1):
        rest, mine = folds != fold, folds == fold
        for t in range(odds.shape[1]):
            mean, scale = odds[rest, t].mean(), max(float(odds[rest, t].std()), 1e-6)
            intercept, slope = _logistic((odds[rest, t] - mean) / scale, labels[rest].astype(np.float64))
            forecasts[mine, t] = 1 / (1 + np.exp(-(intercept + slope * (odds[mine, t] - mean) / scale)))
    return forecasts


def _logistic(x: Float64Array, y: Float64Array) -> tuple[float, float]:
    """Intercept and slope by Newton's method with a small ridge."""
    base = (y.sum() + 0.5) / (len(y) + 1)
    start = np.array([np.log(base / (1 - base)), 0.0])
    parameters, rows = start.copy(), np.stack([np.ones_like(x), x], axis=1)
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(rows @ parameters, -50, 50)))
        gradient = rows.T @ (p - y) + PLATT_PENALTY * (parameters - start)
        curvature = (rows * (p * (1 - p))[:, None]).T @ rows + PLATT_PENALTY * np.eye(2)
        parameters = parameters - np.linalg.solve(curvature, gradient)
    return float(parameters[0]), float(parameters[1])


def scores_by_step(
    contenders: dict[str, npt.NDArray[np.floating]],
    targets: Float64Array,
    groups: Sequence[str],
    steps: Sequence[int],
    *,
    labelled: bool,
    classes: bool = False,
    seed: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> list[StepScores]:
    """Each contender (N, T, K) at each step against targets (N, K): labels, or the model's own numbers at step T.

    `classes`: the K are classes that exclude each other. `on_progress` is called with 1 for each contender and step.
    """
    _, members = np.unique(np.asarray(groups), return_inverse=True)
    count = int(members.max()) + 1
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(count, np.full(count, 1 / count), RESAMPLES) if count > 1 else None

    def estimate(score: Score) -> Estimate:
        value = counted_once(score, len(members))
        if drawn is None or np.isnan(value):
            return Estimate(value, None)
        low, high = np.nanpercentile([score(times[members]) for times in drawn], INTERVAL)
        return Estimate(value, (float(low), float(high)))

    found = []
    for step in steps:
        for name, forecasts in contenders.items():
            p = np.asarray(forecasts[:, step - 1], np.float64)
            loss = estimate(log_loss_score(p, targets, classes=classes))
            auc = estimate(area_under_curve_score(p, targets)) if labelled else None
            error = estimate(calibration_error_score(p, targets, classes=classes))
            found.append(StepScores(step, name, loss, auc, error))
            if on_progress is not None:
                on_progress(1)
    return found


def drift(forecasts: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Mean increment and its slope on the forecast before it, over the paths (N, T); a martingale has 0 and 0."""
    before, increments = forecasts[:, :-1].ravel(), np.diff(forecasts, axis=1).ravel()
    spread = before.var()
    slope = 0.0 if spread == 0 else float(((before - before.mean()) * increments).mean() / spread)
    return float(increments.mean()), slope
