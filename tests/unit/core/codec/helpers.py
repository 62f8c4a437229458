"""Batches of raw records, what was decoded of them row by row, and random predictions."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from worker.core.codec import InputDecoder, OutputEncoder, input_decoder, output_encoder
from worker.core.types import DecodedBatch, EndedBy, Headers, Kind, ModelLabel, PredictionBatch, RecordBatch

FIXTURES = Path(__file__).parents[3] / "fixtures" / "records"
NOW_MS = 1_732_000_000_000
FUTURE_MS_MAX = 3_600_000
VALUE_BYTES_MAX = 1000
CHARACTERS = 'a1"\\/{}[],:%ü\u2028😀\x00\n'
"""What escaping and joining could trip over. All of Unicode would cost a fresh checkout seconds for its tables."""


@dataclass(frozen=True)
class Raw:
    """One record as Kafka delivers it."""

    value: bytes | None
    key: bytes | None = b"stream"
    headers: Headers | None = None
    event_time: int = NOW_MS


control_headers = st.none() | st.lists(
    st.tuples(
        st.sampled_from(["sequence_id", "step", "end", "traceparent"]),
        st.none() | st.sampled_from([b"1", b"2", b"true", b"false", b"run", b"", b"\xff"]) | st.binary(max_size=3),
    ),
    max_size=4,
)


@dataclass(frozen=True)
class Row:
    """What was decoded of one record; `reason` where it was rejected."""

    kind: Kind
    features: tuple[float, ...] = (0.0, 0.0, 0.0)
    sequence_id: bytes | None = None
    step: int = 0
    end: bool = False
    reason: str = ""


def fixture_lines(name: str) -> list[dict]:
    return [json.loads(line) for line in (FIXTURES / name).read_text(encoding="utf-8").splitlines()]


def json_decoder(**changed) -> InputDecoder:
    settings = {"features": 3, "value_bytes_max": VALUE_BYTES_MAX, "future_ms_max": FUTURE_MS_MAX}
    return input_decoder("json", **{**settings, **changed})


def binary_decoder(**changed) -> InputDecoder:
    settings = {"features": 3, "value_bytes_max": VALUE_BYTES_MAX, "future_ms_max": FUTURE_MS_MAX}
    return input_decoder("binary", **{**settings, **changed})


def decode(decoder: InputDecoder, records: list[Raw]) -> list[Row]:
    """The rows of one batch; checks that the columns have the promised shapes."""
    return rows(decoder.decode(record_batch(records), NOW_MS), len(records))


def record_batch(records: list[Raw]) -> RecordBatch:
    return RecordBatch(
        partitions=np.zeros(len(records), np.int32),
        offsets=np.arange(len(records), dtype=np.int64),
        event_times=np.array([record.event_time for record in records], np.int64),
        keys=[record.key for record in records],
        values=[record.value for record in records],
        headers=[record.headers for record in records] if any(record.headers for record in records) else None,
    )


def decode_one(decoder: InputDecoder, value: bytes | None, **given) -> Row:
    (row,) = decode(decoder, [Raw(value, **given)])
    return row


def rows(decoded: DecodedBatch, count: int) -> list[Row]:
    assert decoded.features.dtype == np.float32
    assert decoded.features.shape[0] == count
    assert decoded.kinds.dtype == np.uint8
    assert decoded.steps is None or decoded.steps.any(), "a column without a given control is None"
    assert decoded.ends is None or decoded.ends.any()
    assert decoded.sequence_ids is None or any(decoded.sequence_ids)
    assert set(decoded.rejections) == set(np.flatnonzero(decoded.kinds == Kind.REJECTED).tolist())
    return [
        Row(
            kind=Kind(int(decoded.kinds[i])),
            features=tuple(decoded.features[i].tolist()),
            sequence_id=decoded.sequence_ids[i] if decoded.sequence_ids is not None else None,
            step=int(decoded.steps[i]) if decoded.steps is not None else 0,
            end=bool(decoded.ends[i]) if decoded.ends is not None else False,
            reason=decoded.rejections[i].reason if i in decoded.rejections else "",
        )
        for i in range(count)
    ]


def encoder(record_format: str, **changed) -> OutputEncoder:
    label = {"model": "5f0c9a1e", "calibration": "a41b77c2", "length": 7}
    label |= {name: changed.pop(name) for name in label if name in changed}
    settings = {"topic": "samples", "models": [ModelLabel(**label)], "outputs": 1}
    return output_encoder(record_format, **{**settings, **changed})


def prediction(**changed) -> PredictionBatch:
    """One row, the documented example; an argument replaces the row's value."""
    return predictions_of([{**EXAMPLE, **changed}])


EXAMPLE = {
    "partitions": 0,
    "event_times": 1_732_000_000_123,
    "source_offsets": 12345,
    "first_offsets": 12301,
    "steps": 3,
    "logits": [0.9997],
    "probabilities": [0.731],
    "final": False,
    "exact": False,
    "tainted": False,
    "closing": False,
    "ended_by": EndedBy.NONE,
    "sequence_id": b"run-7",
}


_DTYPES = {
    "partitions": np.int32,
    "event_times": np.int64,
    "source_offsets": np.int64,
    "first_offsets": np.int64,
    "steps": np.int32,
    "logits": np.float32,
    "probabilities": np.float32,
    "final": np.bool_,
    "exact": np.bool_,
    "tainted": np.bool_,
    "closing": np.bool_,
    "ended_by": np.uint8,
}


def predictions_of(given: list[dict], outputs: int = 1) -> PredictionBatch:
    columns = {name: np.array([row[name] for row in given], dtype) for name, dtype in _DTYPES.items()}
    ids = [row["sequence_id"] for row in given]
    batch = PredictionBatch(keys=[b"stream"] * len(given), sequence_ids=ids if any(ids) else None, **columns)
    shape = (len(given), outputs if not given else -1)
    return replace(batch, logits=batch.logits.reshape(shape), probabilities=batch.probabilities.reshape(shape))


def prediction_rows(outputs: int) -> st.SearchStrategy[dict]:
    """Rows that the worker could publish."""
    offsets = st.integers(0, 2**63 - 1)
    # Read as float64, the shortest text of the largest float32 is above it: Protobuf's JSON parser refuses that.
    numbers = st.floats(-(2.0**127), 2.0**127, width=32)
    shares = st.floats(0, 1, width=32)

    def vector(elements: st.SearchStrategy[float]) -> st.SearchStrategy[list[float]]:
        return st.just([float("nan")] * outputs) | st.lists(elements, min_size=outputs, max_size=outputs)

    def consistent(row: dict) -> dict:
        final = row["ended_by"] != EndedBy.NONE
        return {
            **row,
            "final": final,
            "closing": row["closing"] and final,
            "exact": row["exact"] and not row["tainted"],
        }

    return st.fixed_dictionaries(
        {
            "partitions": st.integers(0, 10_000),
            "event_times": st.integers(0, 2**45),
            "source_offsets": offsets,
            "first_offsets": offsets,
            "steps": st.integers(1, 2**31 - 1),
            "logits": vector(numbers),
            "probabilities": vector(shares),
            "exact": st.booleans(),
            "tainted": st.booleans(),
            "closing": st.booleans(),
            "ended_by": st.sampled_from(EndedBy),
            "sequence_id": st.just(b"") | st.text(CHARACTERS, min_size=1, max_size=6).map(str.encode),
        }
    ).map(consistent)
