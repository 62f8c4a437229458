"""Which sequences are left out together, so that nothing is scored by what was fitted with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.core.types import Float32Array, Int64Array

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Folds:
    """Which part each sequence is left out with."""

    of_sequence: Int64Array
    """(N,), from 0 on."""
    by_recording: bool
    """Whether recordings are left out whole; else one is so large that little would remain."""


def folds_of(final_logits: Float32Array, recordings: Sequence[str]) -> Folds:
    """Recordings are kept together, dealt out in order of the final logits (N, K) so that folds are alike; of several
    outputs in that of the likeliest, and among those that share it by how likely it is.

    Where a fold would leave less than half of the sequences to fit on, sequences are dealt out one by one.
    """
    _, members = np.unique(np.asarray(recordings), return_inverse=True)
    folds = _dealt(final_logits, members)
    if 2 * int(np.bincount(folds).max()) <= len(folds):
        return Folds(folds, by_recording=True)
    return Folds(_dealt(final_logits, np.arange(len(folds))), by_recording=False)


def _dealt(final_logits: Float32Array, members: Int64Array) -> Int64Array:
    """Fold of each sequence from the number of what it is kept together with."""
    count = int(members.max()) + 1
    sums = [np.bincount(members, weights=each) for each in final_logits.astype(np.float64).T]
    means = np.stack(sums, axis=1) / np.bincount(members)[:, None]
    above = means - means.mean(axis=1, keepdims=True) if means.shape[1] > 1 else means
    fold_of_member = np.empty(count, np.int64)
    fold_of_member[np.lexsort((above.max(axis=1), above.argmax(axis=1)))] = np.arange(count) % min(FOLDS, count)
    folds: Int64Array = fold_of_member[members]
    return folds
