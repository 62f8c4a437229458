"""JSON in and out.

In: `{"features": [..]}` or named fields, with the optional controls `sequence_id`, `step`, `end`. Out: one object a
record, fields in the documented order, NaN as null.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from worker.core.codec.controls import (
    BadControl,
    Controls,
    checked_sequence_id,
    checked_step,
    envelope_rejections,
    header_controls,
)
from worker.core.types import (
    DecodedBatch,
    EndedBy,
    Float32Array,
    Headers,
    Kind,
    PredictionBatch,
    RecordBatch,
    Rejection,
)

_NUMBERS = {int, float}


class _UnusableError(ValueError):
    """Raised when a value cannot be used; `args` are reason and detail."""


class JsonDecoder:
    """A clean batch (objects with nothing but features, no headers) is read as columns; any other one by one."""

    def __init__(self, features: int, names: Sequence[str], value_bytes_max: int, future_ms_max: int) -> None:
        if names and len(names) != features:
            raise ValueError(f"{len(names)} feature names for {features} features")
        self._features = features
        self._names = tuple(names)
        self._fields = self._names or ("features",)
        self._row = itemgetter(*self._fields)
        self._value_bytes_max = value_bytes_max
        self._future_ms_max = future_ms_max

    def decode(self, batch: RecordBatch, now_ms: int) -> DecodedBatch:
        """See InputDecoder."""
        rejections = envelope_rejections(batch, now_ms, self._value_bytes_max, self._future_ms_max)
        if not rejections and batch.headers is None:
            features = self._clean(batch.values)
            if features is not None:
                return DecodedBatch(features, np.zeros(len(batch), np.uint8))
        return self._one_by_one(batch, rejections)

    def _clean(self, values: Sequence[bytes | None]) -> Float32Array | None:
        """(N, F) when every value is an object with the features and nothing else, else None."""
        try:
            records = list(map(orjson.loads, values))  # type: ignore[arg-type]  # None raises, like any non-JSON
        except orjson.JSONDecodeError:
            return None
        if set(map(type, records)) != {dict} or set(map(len, records)) != {len(self._fields)}:
            return None
        try:
            rows = list(map(self._row, records))
        except KeyError:
            return None
        if self._features == 1 and self._names:
            flat = rows
        else:
            row_type = tuple if self._names else list
            if set(map(type, rows)) != {row_type} or set(map(len, rows)) != {self._features}:
                return None
            flat = list(chain.from_iterable(rows))
        if not set(map(type, flat)) <= _NUMBERS:
            return None
        with np.errstate(over="ignore"):
            features = np.array(flat, np.float64).astype(np.float32).reshape(len(values), self._features)
        return features if np.isfinite(features).all() else None

    def _one_by_one(self, batch: RecordBatch, rejections: dict[int, Rejection]) -> DecodedBatch:
        count = len(batch)
        features = np.zeros((count, self._features), np.float32)
        kinds = np.zeros(count, np.uint8)
        ends = np.zeros(count, np.bool_)
        steps = np.zeros(count, np.int64)
        ids: list[bytes | None] = [None] * count
        for i in range(count):
            if i in rejections:
                continue
            try:
                kind, sample, controls = self._one(batch.values[i], batch.headers[i] if batch.headers else None)
            except _UnusableError as error:
                rejections[i] = Rejection(*error.args)
                continue
            except BadControl as error:
                rejections[i] = Rejection("control", str(error))
                continue
            kinds[i] = kind
            if sample is not None:
                features[i] = sample
            ends[i], steps[i], ids[i] = bool(controls.end), controls.step or 0, controls.sequence_id
        kinds[list(rejections)] = Kind.REJECTED
        return DecodedBatch(
            features=features,
            kinds=kinds,
            ends=ends if ends.any() else None,
            steps=steps if steps.any() else None,
            sequence_ids=ids if any(given is not None for given in ids) else None,
            rejections=rejections,
        )

    def _one(self, value: bytes | None, headers: Headers | None) -> tuple[Kind, Float32Array | None, Controls]:
        controls = header_controls(headers)
        if value is None:
            return Kind.END, None, controls
        try:
            record = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise _UnusableError("not_json", f"not JSON: {error}") from error
        if type(record) is not dict:
            raise _UnusableError("not_object", f"a JSON {type(record).__name__}, not an object")
        _set_from_fields(controls, record)
        if not any(name in record for name in self._fields):
            if controls.end:
                return Kind.END, None, controls
            raise _UnusableError("missing_features", f"the object has no {' or '.join(self._fields)}")
        return Kind.SAMPLE, self._sample(record), controls

    def _sample(self, record: dict[str, Any]) -> Float32Array:
        if self._names:
            missing = [name for name in self._names if name not in record]
            if missing:
                raise _UnusableError("missing_features", f"the object has no {', '.join(missing)}")
            numbers: Any = [record[name] for name in self._names]
        else:
            numbers = record["features"]
            if type(numbers) is not list:
                raise _UnusableError("not_a_number", "features is not an array")
            if len(numbers) != self._features:
                raise _UnusableError("feature_count", f"{len(numbers)} features, the model takes {self._features}")
        if not set(map(type, numbers)) <= _NUMBERS:
            raise _UnusableError("not_a_number", f"a feature is not a number: {str(numbers)[:60]}")
        with np.errstate(over="ignore"):
            sample = np.array(numbers, np.float64).astype(np.float32)
        if not np.isfinite(sample).all():
            raise _UnusableError("not_finite", "a feature is infinite as a float32")
        return sample


def _set_from_fields(controls: Controls, record: dict[str, Any]) -> None:
    """Controls given as fields win over headers; null stands for not given."""
    sequence_id, step, end = record.get("sequence_id"), record.get("step"), record.get("end")
    if sequence_id is not None:
        if type(sequence_id) is not str:
            raise BadControl("sequence_id is not a string")
        controls.sequence_id = checked_sequence_id(sequence_id.encode("utf-8"))
    if step is not None:
        controls.step = checked_step(step)
    if end is not None:
        if type(end) is not bool:
            raise BadControl("end is neither true nor false")
        controls.end = end


class JsonEncoder:
    """Columns are written by one call each, then joined row by row through one prepared template."""

    def __init__(self, topic: str, length: int | None, model: str, calibration: str | None, outputs: int) -> None:
        self._one_output = outputs == 1
        probability, logit = ("probability", "logit") if self._one_output else ("probabilities", "logits")
        escaped_topic = _escaped(orjson.dumps(topic))
        self._template = (
            b'{"sequence":%b,"step":%b,"length":'
            + orjson.dumps(length)
            + b',"'
            + probability.encode()
            + b'":%b,"'
            + logit.encode()
            + b'":%b,%b,"event_time":%b,"first_offset":%b,"source":{"topic":'
            + escaped_topic
            + b',"partition":%b,"offset":%b},"model":'
            + orjson.dumps(model)
            + b',"calibration":'
            + orjson.dumps(calibration)
            + b"}"
        )
        self._flags = [_flags(code) for code in range(256)]

    def encode(self, predictions: PredictionBatch) -> list[bytes]:
        """See OutputEncoder."""
        if not len(predictions):
            return []
        partitions = _numbers(predictions.partitions)
        first_offsets = _numbers(predictions.first_offsets)
        codes = (
            predictions.exact.astype(np.uint8)
            | predictions.final.astype(np.uint8) << 1
            | predictions.closing.astype(np.uint8) << 2
            | predictions.tainted.astype(np.uint8) << 3
            | predictions.ended_by << 4
        )
        columns = (
            _sequences(partitions, first_offsets, predictions.sequence_ids),
            _numbers(predictions.steps),
            self._floats(predictions.probabilities),
            self._floats(predictions.logits),
            map(self._flags.__getitem__, codes.tolist()),
            _numbers(predictions.event_times),
            first_offsets,
            partitions,
            _numbers(predictions.source_offsets),
        )
        return list(map(self._template.__mod__, zip(*columns, strict=True)))

    def _floats(self, values: Float32Array) -> list[bytes]:
        contiguous = np.ascontiguousarray(values)
        if self._one_output:
            return _numbers(contiguous.reshape(-1))
        inner = orjson.dumps(contiguous, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2]
        return [b"[" + row + b"]" for row in inner.split(b"],[")]


def _numbers(column: np.ndarray[Any, Any]) -> list[bytes]:
    text = orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)
    return text[1:-1].split(b",")


def _sequences(partitions: list[bytes], first_offsets: list[bytes], ids: list[bytes] | None) -> list[bytes]:
    derived = list(map(b'"%b-%b"'.__mod__, zip(partitions, first_offsets, strict=True)))
    if ids is None:
        return derived
    return [orjson.dumps(given.decode("utf-8")) if given else own for given, own in zip(ids, derived, strict=True)]


def _flags(code: int) -> bytes:
    exact, final, closing, tainted = (orjson.dumps(bool(code >> bit & 1)) for bit in range(4))
    reason = code >> 4
    known = reason < len(EndedBy) and reason != EndedBy.NONE
    ended_by = orjson.dumps(EndedBy(reason).name.lower() if known else None)
    return b'"exact":%b,"final":%b,"ended_by":%b,"closing":%b,"tainted":%b' % (exact, final, ended_by, closing, tainted)


def _escaped(text: bytes) -> bytes:
    """For use inside a template of the `%` operator."""
    return text.replace(b"%", b"%%")
