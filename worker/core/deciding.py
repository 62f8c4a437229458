"""The early decision: the first step at which a sequence's answer is sure enough, told once.

With a calibrated probability p, the chance that the model's last step will say otherwise is about 1 - p for the
likelier answer. `worker.model.early_decisions` finds the threshold that keeps a promised error.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from worker.core.slots import StreamTable
from worker.core.state_row import Flag
from worker.core.types import BoolArray, Float32Array, Int16Array, Int64Array, PredictionBatch

UNDECIDED = -1


def decisions(
    predictions: PredictionBatch,
    slots: Int64Array,
    decided_before: BoolArray,
    table: StreamTable,
    threshold: npt.NDArray[np.floating] | float,
) -> Int16Array:
    """The answer (M,) where a row decides its sequence: 1 or 0 of a single output, else the class; UNDECIDED elsewhere.

    A row decides when its likelier answer has at least `threshold`, one for all rows or (M,), or when it is the model's
    own last word. Tainted and closing rows never do. `decided_before` (M,): an earlier batch decided the row's
    sequence. Marks the table's open sequences as decided.
    """
    answers = np.full(len(predictions), UNDECIDED, np.int16)
    likelier, answer = _likelier(predictions.probabilities)
    with np.errstate(invalid="ignore"):
        sure = (likelier >= threshold) | (predictions.final & predictions.exact)
    sure &= np.isfinite(likelier) & ~predictions.tainted & ~predictions.closing & ~decided_before
    decided: set[tuple[int, int]] = set()
    for row in np.flatnonzero(sure).tolist():
        slot, first_offset = int(slots[row]), int(predictions.first_offsets[row])
        if (slot, first_offset) in decided:
            continue
        decided.add((slot, first_offset))
        answers[row] = answer[row]
        header = table.rows[slot]
        if header["step"] > 0 and header["first_offset"] == first_offset:
            header["flags"] |= int(Flag.DECIDED)
    return answers


def _likelier(probabilities: Float32Array) -> tuple[Float32Array, npt.NDArray[np.int16]]:
    if probabilities.shape[1] == 1:
        p = probabilities[:, 0]
        return np.maximum(p, 1 - p), (p >= 0.5).astype(np.int16)
    known = np.nan_to_num(probabilities, nan=-1.0)
    best = known.argmax(axis=1)
    likelier: Float32Array = probabilities[np.arange(len(best)), best]
    return likelier, best.astype(np.int16)
