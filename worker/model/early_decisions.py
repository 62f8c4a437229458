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


@dataclass(frozen=True, slots=True)
class Paths:
    """The likelier answer of each step of N sequences: its probability (N, T), NaN for none, and which it is (N, T)."""

    likelier: Float32Array
    answers: Int64Array

    @classmethod
    def of(cls, published: Float32Array) -> Paths:
        """published (N, T, K): a probability, or those of classes that exclude each other."""
        if published.shape[2] > 1:
            return cls(published.max(axis=2), published.argmax(axis=2))
        p = published[:, :, 0]
        return cls(np.maximum(p, 1 - p), (p >= 0.5).astype(np.int64))

    def decided_at(self, threshold: float) -> Int64Array:
        """The rule of `worker.core.deciding`: index of the deciding step of each sequence (N,), T - 1 at the latest."""
        sure = self.likelier >= np.float32(threshold)
        sure[:, -1] = True
        steps: Int64Array = sure.argmax(axis=1)
        return steps

    def early_and_taken_back(self, threshold: float) -> tuple[int, int]:
        """Sequences decided before step T, and those of them that step T takes back."""
        steps = self.decided_at(threshold)
        early = np.flatnonzero(steps < self.answers.shape[1] - 1)
        return len(early), int((self.answers[early, steps[early]] != self.answers[early, -1]).sum())


def decision_scores(published: Float32Array, targets: npt.NDArray[np.floating], threshold: float) -> DecisionScores:
    """On paths (N, T, K), against targets (N, K)."""
    paths, count = Paths.of(published), len(published)
    steps = paths.decided_at(threshold)
    early, back = paths.early_and_taken_back(threshold)
    right = Paths.of(targets[:, None]).answers[:, 0]
    return DecisionScores(
        early / count,
        float(steps.mean() + 1),
        back / early if early else 0.0,
        float((paths.answers[np.arange(count), steps] == right).mean()),
    )


def decisions_by_error(published: Float32Array) -> tuple[Int64Array, Int64Array]:
    """At each threshold 1 - ERRORS: sequences decided early, and those of them that step T takes back."""
    paths = Paths.of(published)
    early, back = zip(*(paths.early_and_taken_back(1 - error) for error in ERRORS), strict=True)
    return np.array(early, np.int64), np.array(back, np.int64)


def promised_threshold(early: Int64Array, back: Int64Array, max_error: float) -> float | None:
    """The lowest threshold that keeps the promise, from `decisions_by_error`; None where none can be shown to."""
    kept = (back + 1) / (early + 1) <= max_error
    fitting = [error for error, keeps in zip(ERRORS, kept.tolist(), strict=True) if keeps and error <= max_error]
    return 1 - max(fitting) if fitting else None


def smallest_promise(early: Int64Array, back: Int64Array) -> float:
    """The smallest error that can be promised, rounded up to a thousandth; 1 where nothing can."""
    return math.ceil(float(np.maximum((back + 1) / (early + 1), ERRORS).min()) * 1000) / 1000
