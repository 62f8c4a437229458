"""How good early probabilities are: scores by step with bootstrap intervals, and the labelled alternative beside them.

Everything is cross-fitted: no sequence is scored by numbers that were fitted with it. Intervals resample recordings,
since windows of one recording are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.core.types import Float64Array, Int64Array
from worker.model.activations import sigmoid, softmax
from worker.model.calibration_logistic import corrected
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
"""Pull of a slope to 0, as if one sequence more were known."""
SPREAD_MIN = 1e-9
"""Variance of forecasts below which they are alike, and have no slope."""


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


def platt_forecasts(
    predictors: Float64Array, labels: npt.NDArray[np.bool_], folds: Int64Array, steps: Sequence[int], *, classes: bool
) -> Float64Array:
    """Probabilities (N, T, K) by a logistic regression of labels (N, K) on the own predictors (N, T, K) of each of
    these steps, without the sequence's fold (N,); NaN at other steps."""
    forecasts = np.full(predictors.shape, np.nan)
    for fold in range(int(folds.max()) + 1):
        rest, mine = folds != fold, folds == fold
        for step in steps:
            x = predictors[:, step - 1]
            mean, scale = x[rest].mean(axis=0), np.maximum(x[rest].std(axis=0), 1e-6)
            standard, none = (x - mean) / scale, np.zeros(x.shape[1])
            intercepts, slopes = corrected(
                standard[rest], labels[rest].astype(np.float64), none, classes=classes, penalty=PLATT_PENALTY
            )
            answers = intercepts + slopes * standard[mine]
            forecasts[mine, step - 1] = softmax(np, answers) if classes else sigmoid(np, answers)
    return forecasts


def scores_by_step(
    contenders: dict[str, npt.NDArray[np.floating]],
    targets: Float64Array,
    groups: Sequence[str],
    folds: Int64Array,
    steps: Sequence[int],
    *,
    labelled: bool,
    classes: bool = False,
    seed: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> list[StepScores]:
    """Each contender (N, T, K) at each step against targets (N, K): labels, or the model's own numbers at step T.

    Only sequences of one fold (N,) are ranked against each other: forecasts of two folds come from two fits.
    `classes`: the K are classes that exclude each other. `on_progress` is called with 1 for each contender and step.
    """
    _, members = np.unique(np.asarray(groups), return_inverse=True)
    count = int(members.max()) + 1
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(count, np.full(count, 1 / count), RESAMPLES) if count > 1 else None

    def estimate(score: Score, *, biased: bool = False) -> Estimate:
        value = counted_once(score, len(members))
        if drawn is None or np.isnan(value):
            return Estimate(value, None)
        resampled = np.array([score(times[members]) for times in drawn])
        if biased:  # a resample adds noise to what already holds the sample's, and a distance only grows by it
            resampled = np.maximum(resampled - (np.nanmean(resampled) - value), 0)
        low, high = np.nanpercentile(resampled, INTERVAL)
        return Estimate(value, (float(low), float(high)))

    found = []
    for step in steps:
        for name, forecasts in contenders.items():
            p = np.asarray(forecasts[:, step - 1], np.float64)
            loss = estimate(log_loss_score(p, targets, classes=classes))
            auc = estimate(area_under_curve_score(p, targets, folds)) if labelled else None
            error = estimate(calibration_error_score(p, targets, classes=classes), biased=True)
            found.append(StepScores(step, name, loss, auc, error))
            if on_progress is not None:
                on_progress(1)
    return found


def drift(forecasts: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Mean increment and its slope on the forecast before it, over the paths (N, T); a martingale has 0 and 0."""
    before, increments = forecasts[:, :-1].ravel(), np.diff(forecasts, axis=1).ravel()
    spread = before.var()
    slope = 0.0 if spread < SPREAD_MIN else float(((before - before.mean()) * increments).mean() / spread)
    return float(increments.mean()), slope
