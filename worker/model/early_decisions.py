"""What early decisions cost, on whole paths of published probabilities, and which threshold keeps a promise.

A calibrated probability of p promises that step T says otherwise with 1 - p, as far as two numbers a step can tell. So
the threshold for a promised error is tested on what cross-fitted forecasts did: of all early decisions the share that
step T took back. Sequences of one recording stand or fall together, so a recording is one piece of evidence, and one
with fewer decisions than the largest is as much less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.core.types import Float32Array, Float64Array, Int64Array

ERRORS = tuple(
    round(digits * 10.0**power, 9) for power in range(-6, 0) for digits in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
)[:-2]
"""1 - threshold of those that are counted, 10 a decade, up to .5."""
TRIED = (1, 2, 5)
"""A promise of e is tried at the thresholds 1 - e, 1 - e / 2 and 1 - e / 5."""
CONFIDENCE = 0.9
"""With which one that is taken keeps its promise. Each of those tried may err with a third of the rest."""


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
class DecisionCounts:
    """At each threshold 1 - ERRORS, of recordings whose sequences were forecast without them."""

    recordings: Int64Array
    """With sequences that are decided before step T."""
    decided: Float64Array
    """Early decisions, as multiples of those of the recording with most."""
    taken_back: Float64Array
    """Those that step T takes back, likewise."""


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

    def taken_back(self, steps: Int64Array) -> npt.NDArray[np.bool_]:
        """Whether step T says otherwise than the deciding step (N,)."""
        back: npt.NDArray[np.bool_] = self.answers[np.arange(len(steps)), steps] != self.answers[:, -1]
        return back


def decision_scores(published: Float32Array, targets: npt.NDArray[np.floating], threshold: float) -> DecisionScores:
    """On paths (N, T, K), against targets (N, K)."""
    paths = Paths.of(published)
    steps = paths.decided_at(threshold)
    early = steps < published.shape[1] - 1
    right = Paths.of(targets[:, None]).answers[:, 0]
    return DecisionScores(
        float(early.mean()),
        float(steps.mean() + 1),
        float(paths.taken_back(steps)[early].mean()) if early.any() else 0.0,
        float((paths.answers[np.arange(len(steps)), steps] == right).mean()),
    )


def no_decisions() -> DecisionCounts:
    """Counts that show nothing."""
    return DecisionCounts(np.zeros(len(ERRORS), np.int64), np.zeros(len(ERRORS)), np.zeros(len(ERRORS)))


def counted_decisions(published: Float32Array, recordings: Int64Array) -> DecisionCounts:
    """On paths (N, T, K) of the recordings with these numbers (N,), from 0 on."""
    paths, counts = Paths.of(published), no_decisions()
    for number, error in enumerate(ERRORS):
        steps = paths.decided_at(1 - error)
        early = steps < published.shape[1] - 1
        decided = np.bincount(recordings[early], minlength=1)
        back = np.bincount(recordings[early], paths.taken_back(steps)[early], minlength=1)
        most = max(1, int(decided.max()))
        counts.recordings[number] = np.count_nonzero(decided)
        counts.decided[number], counts.taken_back[number] = decided.sum() / most, back.sum() / most
    return counts


def promised_threshold(counts: DecisionCounts, max_error: float) -> float | None:
    """The lowest of the thresholds tried that keeps the promise with CONFIDENCE; None where none can be shown to.

    Of a recording with a share d of the decisions of the largest, of which b were taken back, b + max_error (1 - d) is
    between 0 and 1, and is max_error or more on average where the promise is broken.
    """
    for divisor in TRIED:
        number = int(np.searchsorted(ERRORS, max_error / divisor * (1 + 1e-9), side="right")) - 1
        if number < 0:
            continue
        recordings = int(counts.recordings[number])
        wrong = counts.taken_back[number] + max_error * (recordings - counts.decided[number])
        tail = _binomial_tail(math.ceil(wrong - 1e-6), recordings, max_error)
        if tail <= (1 - CONFIDENCE) / len(TRIED):
            return 1 - ERRORS[number]
    return None


def smallest_promise(counts: DecisionCounts) -> float | None:
    """The smallest error that can be promised, in thousandths; None where not even the largest, .5, can."""
    found = (k / 1000 for k in range(1, 501) if promised_threshold(counts, k / 1000) is not None)
    return next(found, None)


def _binomial_tail(wrong: int, count: int, error: float) -> float:
    """The chance of at most so many wrong among `count` where each is wrong with `error` (Clopper and Pearson 1934)."""
    if wrong >= error * count:
        return 1.0  # it is a half or more, and far from being any evidence
    k = np.arange(1, wrong + 1)
    choices = np.concatenate([[0.0], np.cumsum(np.log((count - k + 1) / k))])
    k = np.arange(wrong + 1)
    return float(np.exp(choices + k * math.log(error) + (count - k) * math.log1p(-error)).sum())
