"""Little-endian float32 in, a packed record out; controls come as headers."""

from __future__ import annotations

import numpy as np

from worker.core.codec.controls import BadControl, envelope_rejections, header_controls
from worker.core.types import DecodedBatch, Kind, PredictionBatch, RecordBatch, Rejection


class BinaryDecoder:
    """A value is F little-endian float32 and nothing else."""

    def __init__(self, features: int, value_bytes_max: int, future_ms_max: int) -> None:
        self._features = features
        self._value_bytes = 4 * features
        self._value_bytes_max = value_bytes_max
        self._future_ms_max = future_ms_max

    def decode(self, batch: RecordBatch, now_ms: int) -> DecodedBatch:
        """See InputDecoder."""
        rejections = envelope_rejections(batch, now_ms, self._value_bytes_max, self._future_ms_max)
        kinds = np.zeros(len(batch), np.uint8)
        values: list[bytes | None] = batch.values
        if None in values:
            kinds[[i for i, value in enumerate(values) if value is None]] = Kind.END
        if None in values or set(map(len, values)) != {self._value_bytes}:  # type: ignore[arg-type]
            values = self._usable(values, rejections)
        features = np.frombuffer(b"".join(values), "<f4").reshape(len(batch), self._features)  # type: ignore[arg-type]
        finite = np.isfinite(features).all(axis=1)
        if not finite.all():
            for i in np.flatnonzero(~finite).tolist():
                rejections.setdefault(i, Rejection("not_finite", "a feature is not finite"))
        decoded = DecodedBatch(features, kinds, rejections=rejections)
        if batch.headers is not None:
            _read_controls(batch, decoded)
        kinds[list(rejections)] = Kind.REJECTED
        return decoded

    def _usable(self, values: list[bytes | None], rejections: dict[int, Rejection]) -> list[bytes | None]:
        """Values of the right length; zeros in place of the others."""
        zeros = bytes(self._value_bytes)
        usable: list[bytes | None] = []
        for i, value in enumerate(values):
            fits = value is not None and len(value) == self._value_bytes
            usable.append(value if fits else zeros)
            if value is not None and not fits:
                detail = f"{len(value)} bytes, {self._features} float32 are {self._value_bytes}"
                rejections.setdefault(i, Rejection("length", detail))
        return usable


def _read_controls(batch: RecordBatch, decoded: DecodedBatch) -> None:
    ends = np.zeros(len(batch), np.bool_)
    steps = np.zeros(len(batch), np.int64)
    ids: list[bytes | None] = [None] * len(batch)
    for i, headers in enumerate(batch.headers or ()):
        if not headers or i in decoded.rejections:
            continue
        try:
            controls = header_controls(headers)
        except BadControl as error:
            decoded.rejections[i] = Rejection("control", str(error))
            continue
        ends[i], steps[i], ids[i] = bool(controls.end), controls.step or 0, controls.sequence_id
    decoded.ends = ends if ends.any() else None
    decoded.steps = steps if steps.any() else None
    decoded.sequence_ids = ids if any(given is not None for given in ids) else None


class BinaryEncoder:
    """`int32 step, float32 probability x K, uint8 flags, int64 source offset`, packed; NaN where JSON has null.

    Flags: bit 0 final, 1 exact, 2 tainted, 3 closing, bits 4-7 `EndedBy`.
    """

    def __init__(self, outputs: int) -> None:
        self._dtype = np.dtype(
            [("step", "<i4"), ("probability", "<f4", (outputs,)), ("flags", "u1"), ("source_offset", "<i8")]
        )

    def encode(self, predictions: PredictionBatch) -> list[bytes]:
        """See OutputEncoder."""
        rows = np.empty(len(predictions), self._dtype)
        rows["step"] = predictions.steps
        rows["probability"] = predictions.probabilities
        rows["flags"] = (
            predictions.final.astype(np.uint8)
            | predictions.exact.astype(np.uint8) << 1
            | predictions.tainted.astype(np.uint8) << 2
            | predictions.closing.astype(np.uint8) << 3
            | predictions.ended_by << 4
        )
        rows["source_offset"] = predictions.source_offsets
        return rows.view(f"V{self._dtype.itemsize}").tolist()
