"""Little-endian float32 in, a packed record out; controls come as headers."""

from __future__ import annotations

from typing import cast

import numpy as np

from worker.core.codec.controls import read_controls
from worker.core.codec.envelope import envelope_rejections, reject_too_large
from worker.core.types import (
    BoolArray,
    DecodedBatch,
    Float32Array,
    Kind,
    PredictionBatch,
    RecordBatch,
    Rejection,
    UInt8Array,
)


class BinaryDecoder:
    """A value is F little-endian float32 and nothing else; a null value, or an empty one with `end`, is a boundary."""

    def __init__(self, features: int, value_bytes_max: int, future_ms_max: int) -> None:
        self._features = features
        self._value_bytes = 4 * features
        self._value_bytes_max = value_bytes_max
        self._future_ms_max = future_ms_max

    def decode(self, batch: RecordBatch, now_ms: int) -> DecodedBatch:
        """See InputDecoder."""
        rejections = envelope_rejections(batch, now_ms, self._future_ms_max)
        fit = not rejections and self._all_fit(batch.values)
        if not fit:
            reject_too_large(batch.values, self._value_bytes_max, rejections)
        controls = read_controls(None, batch.headers, rejections)
        kinds = np.zeros(len(batch), np.uint8)
        values = batch.values if fit else self._fitting(batch.values, controls.ends, kinds, rejections)
        features = self._read(values)
        finite = np.isfinite(features).all(axis=1)
        for i in np.flatnonzero(~finite).tolist():
            rejections.setdefault(i, Rejection("not_finite", "a feature is NaN or infinite"))
        return controls.decoded(features, kinds, rejections)

    def _all_fit(self, values: list[bytes | None]) -> bool:
        if self._value_bytes > self._value_bytes_max or None in values:
            return False
        return set(map(len, cast("list[bytes]", values))) <= {self._value_bytes}

    def _read(self, values: list[bytes | None]) -> Float32Array:
        columns = np.frombuffer(b"".join(cast("list[bytes]", values)), "<f4")
        return columns.astype(np.float32).reshape(len(values), self._features)

    def _fitting(
        self,
        values: list[bytes | None],
        ends: BoolArray | None,
        kinds: UInt8Array,
        rejections: dict[int, Rejection],
    ) -> list[bytes | None]:
        """The values, zeros in place of those that are no sample; `kinds` and `rejections` say what these are."""
        zeros = bytes(self._value_bytes)
        fitting: list[bytes | None] = [zeros] * len(values)
        for i, value in enumerate(values):
            if i in rejections:
                continue
            if value is not None and len(value) == self._value_bytes:
                fitting[i] = value
            elif value is None or (not value and ends is not None and ends[i]):
                kinds[i] = Kind.END
            else:
                detail = f"the value has {len(value)} bytes, {self._features} float32 have {self._value_bytes}"
                rejections[i] = Rejection("length", detail)
        return fitting


def flag_bytes(predictions: PredictionBatch) -> UInt8Array:
    """(M,): bit 0 final, 1 exact, 2 tainted, 3 closing, bits 4-7 `EndedBy`."""
    flags: UInt8Array = predictions.final.view(np.uint8) | predictions.ended_by << np.uint8(4)
    flags |= predictions.exact.view(np.uint8) << np.uint8(1)
    flags |= predictions.tainted.view(np.uint8) << np.uint8(2)
    flags |= predictions.closing.view(np.uint8) << np.uint8(3)
    return flags


class BinaryEncoder:
    """`int32 step, float32 probability x K, uint8 flags, int64 source offset`, little-endian and packed.

    A probability is NaN where JSON has null.
    """

    def __init__(self, outputs: int) -> None:
        self._layout = np.dtype(
            [("step", "<i4"), ("probability", "<f4", (outputs,)), ("flags", "u1"), ("source_offset", "<i8")]
        )

    def encode(self, predictions: PredictionBatch) -> list[bytes]:
        """See OutputEncoder."""
        rows = np.empty(len(predictions), self._layout)
        rows["step"] = predictions.steps
        rows["probability"] = predictions.probabilities
        rows["flags"] = flag_bytes(predictions)
        rows["source_offset"] = predictions.source_offsets
        values: list[bytes] = rows.view(f"V{self._layout.itemsize}").tolist()
        return values
