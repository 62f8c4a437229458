"""A batch cut into waves: wave k holds the k-th record of each slot, so that one call steps many streams."""

from __future__ import annotations

import numpy as np

from worker.core.types import Int64Array


def deepest(slots: Int64Array) -> int:
    """How many waves the batch has: the most records of one slot."""
    if not len(slots):
        return 0
    by_slot = np.sort(slots)
    ends = np.flatnonzero(np.append(by_slot[1:] != by_slot[:-1], True))
    return int(np.diff(ends, prepend=-1).max())


def waves(slots: Int64Array) -> tuple[Int64Array, list[Int64Array]]:
    """Distinct slots (U,), most records first, and the record numbers of each wave.

    Record i of wave k belongs to the i-th distinct slot: every wave steps a prefix of the slots of the wave before, so
    their rows are gathered once a batch. Over all waves each record appears once and each slot keeps its order.
    """
    order = np.argsort(slots, kind="stable")
    by_slot = slots[order]
    is_new = by_slot[1:] != by_slot[:-1]
    if is_new.all():
        return slots, [np.arange(len(slots))] if len(slots) else []
    starts = np.concatenate(([0], np.flatnonzero(is_new) + 1))
    counts = np.diff(starts, append=len(slots))
    most_first = np.argsort(-counts, kind="stable")
    starts, counts = starts[most_first], counts[most_first]
    sizes = np.searchsorted(-counts, -np.arange(counts[0]))
    return by_slot[starts], [order[starts[:size] + k] for k, size in enumerate(sizes.tolist())]
