"""A batch cut into waves: wave k holds the k-th record of each slot, so that one call steps many streams."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from worker.core.types import Int64Array


def waves(slots: Int64Array) -> Iterator[Int64Array]:
    """Record numbers of each wave: no slot repeats within one, and over all of them each slot keeps its order."""
    order = np.argsort(slots, kind="stable")
    by_slot = slots[order]
    place = np.arange(len(order))
    begins = np.ones(len(order), np.bool_)
    begins[1:] = by_slot[1:] != by_slot[:-1]
    rank = place - np.maximum.accumulate(np.where(begins, place, 0))
    if not rank.any():
        yield place
        return
    by_rank = np.argsort(rank, kind="stable")
    bounds = np.flatnonzero(np.diff(rank[by_rank])) + 1
    yield from np.split(order[by_rank], bounds)
