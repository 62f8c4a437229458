"""What early decisions cost, on whole paths of published probabilities, and which threshold keeps a promise.

A calibrated probability of p promises that step T says otherwise with 1 - p; as far as two numbers a step can tell. So
the threshold for a promised error is looked up in what cross-fitted forecasts did: the lowest one at which the share
taken back, counted as if one more decision had been wrong, is within the promise (conformal risk control: Angelopoulos
and others 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.core.types import Float32Array, Int64Array

Float64Array = npt.NDArray[np.float64]

ERRORS = tuple(
    round(digits * 10.0**power, 9) for power in range(-6, 0) for digits in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
)[:-2]
"""1 - threshold of those that are tried, 10 a decade, up to .5."""


@dataclass(frozen=True, slots=True)
class DecisionScores:
    """Early decisions at one threshold; shares of all sequences but for `taken_back`."""

    early: float
    """Decided before step T."""
    mean_step: float
    taken_back: float
    """Of those decided early: the model's last step says otherwise."""
    right: float
    """Of all: the decision is the target's."""


def first_decisions(published: Float32Array, threshold: float) -> tuple[Int64Array, Int64Array, Int64Array]:
    """The rule of `worker.core.deciding` on paths (N, T, K) of a probability or of classes; NaN decides nothing.

    Returns the index of the step of each decision (N,), T - 1 where there was none before, what was decided, and what
    the last step says.
    """
    likelier, answers = published.max(axis=2), published.argmax(axis=2)
    if published.shape[2] == 1:
        likelier = np.maximum(published, 1 - published)[:, :, 0]
        answers = (published[:, :, 0] >= 0.5).astype(np.int64)
    sure = likelier >= np.float32(threshold)
    sure[:, -1] = True
    steps = sure.argmax(axis=1)
    return steps, answers[np.arange(len(steps)), steps], answers[:, -1]


def decision_scores(published: Float32Array, targets: npt.NDArray[np.floating], threshold: float) -> DecisionScores:
    """On paths (N, T, K), against targets (N, K)."""
    steps, decided, last = first_decisions(published, threshold)
    early = steps < published.shape[1] - 1
    right = targets.argmax(axis=1) if targets.shape[1] > 1 else (targets[:, 0] >= 0.5).astype(np.int64)
    return DecisionScores(
        float(early.mean()),
        float(steps.mean() + 1),
        float((decided != last)[early].mean()) if early.any() else 0.0,
        float((decided == right).mean()),
    )


def decisions_by_error(published: Float32Array) -> tuple[Int64Array, Int64Array]:
    """At each threshold 1 - ERRORS: sequences decided early, and those of them that step T takes back."""
    early, back = [], []
    for error in ERRORS:
        steps, decided, last = first_decisions(published, 1 - error)
        before_end = steps < published.shape[1] - 1
        early.append(int(before_end.sum()))
        back.append(int((decided != last)[before_end].sum()))
    return np.array(early, np.int64), np.array(back, np.int64)


def promised_threshold(early: Int64Array, back: Int64Array, max_error: float) -> float | None:
    """The lowest threshold that keeps the promise, from `decisions_by_error`; None where none can be shown to."""
    kept = (back + 1) / (early + 1) <= max_error
    fitting = [error for error, keeps in zip(ERRORS, kept.tolist(), strict=True) if keeps and error <= max_error]
    return 1 - max(fitting) if fitting else None


def smallest_promise(early: Int64Array, back: Int64Array) -> float:
    """The smallest error that can be promised, rounded up to a thousandth; 1 where nothing can."""
    return math.ceil(float(np.maximum((back + 1) / (early + 1), ERRORS).min()) * 1000) / 1000
