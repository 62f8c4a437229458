"""Scores of probabilities, prepared once so that resampling costs one pass each.

A score is a function of how often each sequence counts; with all ones it is the plain score.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.core.types import Float64Array, Int64Array

Score = Callable[[Int64Array], float]
"""How often each of N sequences counts (N,) → the score."""

BINS = 10


def log_loss(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """`log_loss_score` of probabilities and labels of one shape, over all entries."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    return counted_once(log_loss_score(p.reshape(-1, 1), y.reshape(-1, 1)), p.size)


def counted_once(score: Score, sequences: int) -> float:
    """The plain score."""
    return score(np.ones(sequences, np.int64))


def log_loss_score(p: Float64Array, y: Float64Array, *, classes: bool = False) -> Score:
    """Mean surprise in nats of p (N, K) for y (N, K) in 0..1; soft targets are allowed, NaN gives NaN.

    Of classes -sum(y log p) a sequence; else -(y log p + (1 - y) log(1 - p)), averaged over the K. Probabilities are
    kept 1e-7 away from 0 and 1, the resolution of float32 near 1, so that one certain mistake costs 16 and not
    infinity.
    """
    if p.shape != y.shape:
        raise ValueError(f"probabilities {p.shape} and labels {y.shape} differ in shape")
    p = np.clip(p, 1e-7, 1 - 1e-7)
    each = -(y * np.log(p)).sum(axis=1) if classes else -(y * np.log(p) + (1 - y) * np.log1p(-p)).mean(axis=1)
    return lambda times: float(times @ each / times.sum())


def calibration_error_score(p: Float64Array, y: Float64Array, *, classes: bool = False) -> Score:
    """Mean distance of forecast and frequency over BINS bins of equally many sequences, weighted by their size.

    The usual definition with equal-mass bins (Nguyen and O'Connor 2015); equal forecasts share a bin. 0 is perfect;
    with N sequences even a perfect forecast scores about sqrt(BINS / N) / 3. Of classes it is that of the likeliest; of
    several numbers their mean.
    """
    if classes:
        best = p.argmax(axis=1)[:, None]
        p, y = np.take_along_axis(p, best, axis=1), np.take_along_axis(y, best, axis=1)
    each = [_calibration_error(p[:, k], y[:, k]) for k in range(p.shape[1])]
    return lambda times: float(np.mean([error(times) for error in each]))


def bins_of(p: npt.NDArray[np.floating], bins: int) -> Int64Array:
    """Bins (N,) of equally many forecasts (N,), as far as equal ones, which share a bin, allow."""
    _, places = np.unique(p, return_inverse=True)
    found: Int64Array = _bins_of_counts(np.bincount(places), bins)[places]
    return found


def _bins_of_counts(counts: npt.NDArray[Any], bins: int) -> Int64Array:
    """Bin of each distinct forecast, of which there are so many, in order: that of its middle one."""
    found: Int64Array = ((np.cumsum(counts) - counts / 2) / counts.sum() * bins).astype(np.int64)
    return found


def _calibration_error(p: Float64Array, y: Float64Array) -> Score:
    distinct, places = np.unique(p, return_inverse=True)

    def score(times: Int64Array) -> float:
        counts = np.bincount(places, times, len(distinct))
        surplus = np.bincount(places, times * (p - y), len(distinct))
        bins = _bins_of_counts(counts, BINS)
        return float(np.abs(np.bincount(bins, surplus)).sum() / counts.sum())

    return score


def area_under_curve_score(p: Float64Array, y: Float64Array, folds: Int64Array | None = None) -> Score:
    """Area under the ROC curve of p (N, K) for labels y (N, K) of 0 and 1; ties count half.

    The mean over the K; those without both labels are left out, NaN where none is left. With `folds` (N,) only pairs of
    sequences of one fold count.
    """
    fold_of = np.zeros(len(p), np.int64) if folds is None else folds
    each = [_area_under_curve(p[:, k], y[:, k] > 0.5, fold_of) for k in range(p.shape[1])]

    def score(times: Int64Array) -> float:
        areas = np.array([area(times) for area in each])
        known = areas[~np.isnan(areas)]
        return float(known.mean()) if len(known) else float("nan")

    return score


def _area_under_curve(p: Float64Array, positive: npt.NDArray[np.bool_], folds: Int64Array) -> Score:
    distinct, places = np.unique(np.stack([folds, p], axis=1), axis=0, return_inverse=True)
    places, fold_of = places.ravel(), distinct[:, 0].astype(np.int64)
    first = np.searchsorted(fold_of, fold_of)

    def score(times: Int64Array) -> float:
        positives = np.bincount(places, np.where(positive, times, 0), len(distinct))
        negatives = np.bincount(places, np.where(positive, 0, times), len(distinct))
        pairs = np.bincount(fold_of, positives) @ np.bincount(fold_of, negatives)
        before = np.cumsum(negatives) - negatives
        below = before - before[first] + negatives / 2
        return float(positives @ below / pairs) if pairs else float("nan")

    return score
