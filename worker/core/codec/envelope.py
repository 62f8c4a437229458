"""Records that cannot be used whatever their value says: key, size and timestamp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worker.core.types import RecordBatch, Rejection


def envelope_rejections(batch: RecordBatch, now_ms: int, future_ms_max: int) -> dict[int, Rejection]:
    """Records whose key or timestamp cannot be used, by number; of several faults the first is named."""
    rejections: dict[int, Rejection] = {}
    if not all(batch.keys):
        for i, key in enumerate(batch.keys):
            if not key:
                rejections[i] = Rejection("key", "the key is null" if key is None else "the key is empty")
    # Kafka writes -1 where a producer gave no timestamp: such a record has no place in event time.
    for i in np.flatnonzero(batch.event_times < 0).tolist():
        rejections.setdefault(i, Rejection("timestamp", "the record has no timestamp"))
    for i in np.flatnonzero(batch.event_times > now_ms + future_ms_max).tolist():
        ahead = int(batch.event_times[i]) - now_ms
        detail = f"the timestamp is {ahead} ms ahead of the worker's clock, input.max_future_ms is {future_ms_max}"
        rejections.setdefault(i, Rejection("future", detail))
    return rejections


def reject_too_large(values: Sequence[bytes | None], value_bytes_max: int, rejections: dict[int, Rejection]) -> None:
    """Add the records whose value is too large even to be looked at."""
    if max(map(len, filter(None, values)), default=0) <= value_bytes_max:
        return
    for i, value in enumerate(values):
        if value is not None and len(value) > value_bytes_max:
            detail = f"the value has {len(value)} bytes, input.max_bytes is {value_bytes_max}"
            rejections.setdefault(i, Rejection("too_large", detail))
