"""What every input format shares: which records cannot be used whatever their value, and controls in headers."""

from __future__ import annotations

import numpy as np

from worker.core.types import BoolArray, Headers, RecordBatch, Rejection

SEQUENCE_ID_BYTES_MAX = 1024
STEP_MAX = 2**53
"""Beyond this, numbers from JSON clients lose their last digits."""
_CONTROL_NAMES = frozenset({"sequence_id", "step", "end"})


class Controls:
    """Controls of one record; None where not given."""

    __slots__ = ("end", "sequence_id", "step")

    def __init__(self) -> None:
        self.sequence_id: bytes | None = None
        self.step: int | None = None
        self.end: bool | None = None


class BadControl(ValueError):
    """Raised when a control's value cannot be used; the record is rejected."""


def envelope_rejections(
    batch: RecordBatch, now_ms: int, value_bytes_max: int, future_ms_max: int
) -> dict[int, Rejection]:
    """Records whose key, size or timestamp cannot be used, by number; no Python per record on a clean batch."""
    rejections: dict[int, Rejection] = {}
    if None in batch.keys or b"" in batch.keys:
        for i, key in enumerate(batch.keys):
            if not key:
                rejections[i] = Rejection("key", "the key is null" if key is None else "the key is empty")
    sizes = np.fromiter(map(len, filter(None, batch.values)), np.int64)
    if len(sizes) and int(sizes.max()) > value_bytes_max:
        for i, value in enumerate(batch.values):
            if value is not None and len(value) > value_bytes_max:
                detail = f"{len(value)} bytes, input.max_bytes is {value_bytes_max}"
                rejections.setdefault(i, Rejection("too_large", detail))
    late: BoolArray = batch.event_times > now_ms + future_ms_max
    untimed: BoolArray = batch.event_times < 0
    if late.any() or untimed.any():
        for i in np.flatnonzero(late).tolist():
            ahead = int(batch.event_times[i]) - now_ms
            detail = f"the timestamp is {ahead} ms ahead of the worker's clock, input.max_future_ms is {future_ms_max}"
            rejections.setdefault(i, Rejection("future", detail))
        for i in np.flatnonzero(untimed).tolist():
            rejections.setdefault(i, Rejection("timestamp", "the record has no timestamp"))
    return rejections


def header_controls(headers: Headers | None) -> Controls:
    """Controls given as headers: UTF-8 text, ASCII digits, `true`/`false`. The last of equal names holds.

    Raises BadControl.
    """
    controls = Controls()
    for name, raw in headers or ():
        if name in _CONTROL_NAMES:
            _set_from_header(controls, name, raw or b"")
    return controls


def _set_from_header(controls: Controls, name: str, raw: bytes) -> None:
    if name == "sequence_id":
        controls.sequence_id = checked_sequence_id(raw)
    elif name == "step":
        if not (raw.isdigit() and len(raw) <= 16):
            raise BadControl(f"header step is not a number in ASCII digits: {raw[:20]!r}")
        controls.step = checked_step(int(raw))
    elif raw in (b"true", b"false"):
        controls.end = raw == b"true"
    else:
        raise BadControl(f"header end is neither true nor false: {raw[:20]!r}")


def checked_step(step: object) -> int:
    """Raises BadControl unless `step` is an integer from 1 on."""
    if type(step) is not int or not 1 <= step <= STEP_MAX:
        raise BadControl(f"step is not an integer from 1 on: {str(step)[:20]}")
    return step


def checked_sequence_id(raw: bytes) -> bytes:
    """Raises BadControl unless the id is UTF-8 text of 1 to SEQUENCE_ID_BYTES_MAX bytes."""
    if not 1 <= len(raw) <= SEQUENCE_ID_BYTES_MAX:
        raise BadControl(f"sequence_id has {len(raw)} bytes, 1 to {SEQUENCE_ID_BYTES_MAX} are allowed")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadControl("sequence_id is not UTF-8 text") from error
    return raw
