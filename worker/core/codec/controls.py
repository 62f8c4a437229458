"""The optional controls `sequence_id`, `step` and `end`, given as JSON fields or as Kafka headers.

A field wins over a header of the same name; null, in either place, stands for not given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from worker.core.types import (
    BoolArray,
    DecodedBatch,
    Float32Array,
    Headers,
    Int64Array,
    Kind,
    Rejection,
    UInt8Array,
)

CONTROL_NAMES = ("sequence_id", "step", "end")
SEQUENCE_ID_BYTES_MAX = 1024
STEP_MAX = 2**53
"""Beyond this, numbers of JavaScript and other double-only producers lose their last digit."""
_STEP_DIGITS_MAX = 16
_ID_RULE = f"not text of 1 to {SEQUENCE_ID_BYTES_MAX} bytes in UTF-8"

Fields = Mapping[str, Any]
T = TypeVar("T")


class BadControl(ValueError):
    """Raised when a control cannot be used; its record is rejected."""


@dataclass(slots=True)
class Controls:
    """Columns of N records, each None when no record carries that control; as in `DecodedBatch`."""

    ends: BoolArray | None = None
    steps: Int64Array | None = None
    sequence_ids: list[bytes | None] | None = None

    def decoded(self, features: Float32Array, kinds: UInt8Array, rejections: dict[int, Rejection]) -> DecodedBatch:
        """The decoded batch; rejected records lose features and controls, only samples keep `end`."""
        if rejections:
            rejected = list(rejections)
            kinds[rejected] = Kind.REJECTED
            features[rejected] = 0
            if self.steps is not None:
                self.steps[rejected] = 0
            if self.sequence_ids is not None:
                for i in rejected:
                    self.sequence_ids[i] = None
        if self.ends is not None:
            self.ends &= kinds == Kind.SAMPLE
        return DecodedBatch(
            features=features,
            kinds=kinds,
            ends=self.ends if self.ends is not None and self.ends.any() else None,
            steps=self.steps if self.steps is not None and self.steps.any() else None,
            sequence_ids=self.sequence_ids if self.sequence_ids is not None and any(self.sequence_ids) else None,
            rejections=rejections,
        )


def read_controls(
    fields: Sequence[Fields] | None, headers: Sequence[Headers | None] | None, rejections: dict[int, Rejection]
) -> Controls:
    """Controls of N records from their JSON fields and their headers; None where no record can carry any there.

    A record with a bad control is added to `rejections`; what already rejected records carry is not looked at.
    """
    if headers is not None and rejections:
        headers = [None if i in rejections else given for i, given in enumerate(headers)]
    try:
        return _columns(fields, headers)
    except BadControl:
        pass
    count = len(fields if fields is not None else headers or ())
    usable_fields: list[Fields] = list(fields) if fields is not None else [{}] * count
    usable_headers: list[Headers | None] = list(headers) if headers is not None else [None] * count
    for i in range(count):
        try:
            _columns(usable_fields[i : i + 1], usable_headers[i : i + 1])
        except BadControl as error:
            rejections[i] = Rejection("control", str(error))
            usable_fields[i], usable_headers[i] = {}, None
    return _columns(usable_fields, usable_headers)


def _columns(fields: Sequence[Fields] | None, headers: Sequence[Headers | None] | None) -> Controls:
    """Raises BadControl when any record has a bad control."""
    # Of equal header names the last one holds, as for Kafka's own lastHeader().
    named = [dict(given) if given else {} for given in headers] if headers is not None else None
    ends = _column("end", fields, _end_from_field, named, _end_from_header)
    steps = _column("step", fields, _step_from_field, named, _step_from_header)
    return Controls(
        ends=np.array(ends, np.bool_) if ends is not None else None,  # None counts as false
        steps=np.array([step or 0 for step in steps], np.int64) if steps is not None else None,
        sequence_ids=_column("sequence_id", fields, _id_from_field, named, _id_from_header),
    )


def _column(
    name: str,
    fields: Sequence[Fields] | None,
    from_field: Callable[[Any], T],
    headers: Sequence[Mapping[str, bytes | None]] | None,
    from_header: Callable[[bytes], T],
) -> list[T | None] | None:
    by_field = _read([given.get(name) for given in fields], from_field) if fields is not None else None
    by_header = _read([given.get(name) for given in headers], from_header) if headers is not None else None
    if by_field is None or by_header is None:
        return by_field if by_header is None else by_header
    return [header if field is None else field for field, header in zip(by_field, by_header, strict=True)]


def _read(given: list[Any], read: Callable[[Any], T]) -> list[T | None] | None:
    if given.count(None) == len(given):
        return None
    return [None if one is None else read(one) for one in given]


def _step_from_field(step: object) -> int:
    if type(step) is int and 1 <= step <= STEP_MAX:  # a bool is an int to isinstance
        return step
    raise BadControl(f"step is a JSON {json_type(step)}, not an integer from 1 to {STEP_MAX}")


def _step_from_header(raw: bytes) -> int:
    if raw.isdigit() and len(raw) <= _STEP_DIGITS_MAX and 1 <= (step := int(raw)) <= STEP_MAX:
        return step
    raise BadControl(f"header step is not an integer from 1 to {STEP_MAX} in ASCII digits")


def _end_from_field(end: object) -> bool:
    if type(end) is not bool:
        raise BadControl(f"end is a JSON {json_type(end)}, not true or false")
    return end


def _end_from_header(raw: bytes) -> bool:
    if raw not in (b"true", b"false"):
        raise BadControl("header end is neither true nor false")
    return raw == b"true"


def _id_from_field(sequence_id: object) -> bytes:
    if type(sequence_id) is str and 1 <= len(raw := sequence_id.encode("utf-8")) <= SEQUENCE_ID_BYTES_MAX:
        return raw
    raise BadControl(f"sequence_id is {_ID_RULE}")


def _id_from_header(raw: bytes) -> bytes:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadControl(f"header sequence_id is {_ID_RULE}") from error
    if 1 <= len(raw) <= SEQUENCE_ID_BYTES_MAX:
        return raw
    raise BadControl(f"header sequence_id is {_ID_RULE}")


_JSON_TYPES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}


def json_type(value: object) -> str:
    """JSON's name for the type of a parsed value, for messages that must not quote the value itself."""
    return _JSON_TYPES.get(type(value), "null")
