"""How good early probabilities are: scores by step with bootstrap intervals, and the labelled alternative beside them.

Everything is cross-fitted: no sequence is scored by numbers that were fitted with it. Intervals resample recordings,
since windows of one recording are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.core.types import Float32Array
from worker.model.calibration import Float64Array, area_under_curve, log_loss
from worker.model.calibration_fit import folds_of_groups

BINS = 10
RESAMPLES = 300
INTERVAL = (2.5, 97.5)
"""Percentiles of the resampled scores."""
PLATT_PENALTY = 1.0
"""Pull of a slope to 0 and of an intercept to the base rate's, as if one sequence more were known."""
NEWTON_STEPS = 30

Score = Callable[[Float64Array, Float64Array], float]
"""(probabilities (N,), labels or soft targets (N,)) → a number."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class StepScores:
    """One contender at one step; `auc` and `calibration_error` are None without labels."""

    step: int
    contender: str
    log_loss: Estimate
    auc: Estimate | None
    calibration_error: Estimate


def expected_calibration_error(probabilities: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Mean distance of forecast and frequency over BINS bins of equally many sequences, weighted by their size.

    The usual definition with equal-mass bins (Nguyen and O'Connor 2015). 0 is perfect; with N sequences even a perfect
    forecast scores about sqrt(BINS / N) / 3.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(targets, np.float64)
    parts = np.array_split(np.argsort(p, kind="stable"), min(BINS, len(p)))
    return float(sum(abs(p[part].mean() - y[part].mean()) * len(part) for part in parts) / len(p))


def platt_forecasts(odds: Float32Array, labels: npt.NDArray[np.bool_], groups: Sequence[str]) -> Float64Array:
    """Probabilities (N, T) by a logistic regression of the labels on the log-odds (N, T) of each step, cross-fitted."""
    folds = folds_of_groups(odds[:, -1:], groups)
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
    seed: int = 1,
) -> list[StepScores]:
    """Each contender (N, T) at each step against targets (N,): labels, or the model's own number at step T."""
    _, members = np.unique(np.asarray(groups), return_inverse=True)
    by_group = [np.flatnonzero(members == group) for group in range(int(members.max()) + 1)]
    generator = np.random.default_rng(seed)
    samples = [
        np.concatenate([by_group[i] for i in generator.integers(0, len(by_group), len(by_group))])
        for _ in range(RESAMPLES)
    ]
    found = []
    for step in steps:
        for name, forecasts in contenders.items():
            p = np.asarray(forecasts[:, step - 1], np.float64)

            def estimate(score: Score, p: Float64Array = p) -> Estimate:
                drawn = np.array([score(p[rows], targets[rows]) for rows in samples])
                low, high = np.nanpercentile(drawn, INTERVAL)
                return Estimate(score(p, targets), float(low), float(high))

            auc = estimate(area_under_curve) if labelled else None
            found.append(StepScores(step, name, estimate(log_loss), auc, estimate(expected_calibration_error)))
    return found


@dataclass(frozen=True, slots=True)
class DecisionScores:
    """What `decide.max_error` gives on these sequences; shares of all of them but for `taken_back`."""

    max_error: float
    early: float
    """Decided before step T."""
    mean_step: float
    taken_back: float
    """Of those decided early: the model's last step says otherwise."""
    right: float
    """Of all: the decision is the target's."""


def decision_scores(
    published: npt.NDArray[np.floating], targets: npt.NDArray[np.floating], max_error: float
) -> DecisionScores:
    """The rule of `worker.core.deciding` on whole paths (N, T) of one output's probability, targets (N,)."""
    timesteps = published.shape[1]
    sure = np.maximum(published, 1 - published) >= 1 - max_error
    sure[:, -1] = True
    steps = sure.argmax(axis=1)
    answers = published[np.arange(len(steps)), steps] >= 0.5
    early = steps < timesteps - 1
    back = answers[early] != (published[early, -1] >= 0.5)
    return DecisionScores(
        max_error,
        float(early.mean()),
        float(steps.mean() + 1),
        float(back.mean()) if early.any() else 0.0,
        float((answers == (targets >= 0.5)).mean()),
    )


def drift(forecasts: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Mean increment and its slope on the forecast before it, over the paths (N, T); a martingale has 0 and 0."""
    before, increments = forecasts[:, :-1].ravel(), np.diff(forecasts, axis=1).ravel()
    spread = before.var()
    slope = 0.0 if spread == 0 else float(((before - before.mean()) * increments).mean() / spread)
    return float(increments.mean()), slope
