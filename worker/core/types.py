"""Columns that travel through the worker: records in, decoded samples, predictions out.

A batch is a set of parallel columns (numpy arrays and lists), not a list of record objects: one Python object
per record and stage would cost more than the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int16Array = npt.NDArray[np.int16]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

Headers = list[tuple[str, bytes | None]]


class Kind(IntEnum):
    """What a decoded record is to its stream."""

    SAMPLE = 0
    END = 1
    """A boundary without a sample: a null value, or `end` without features."""
    REJECTED = 2


class EndedBy(IntEnum):
    """Why a sequence ended; the number is the one in the binary output's flags."""

    NONE = 0
    LENGTH = 1
    END_MARKER = 2
    SEQUENCE_CHANGE = 3
    IDLE_TIMEOUT = 4
    GAP = 5
    RESTART = 6
    MODEL_CHANGE = 7
    OPERATOR = 8


@dataclass(slots=True)
class RecordBatch:
    """Polled records of one input topic in poll order, N of them; per partition the offsets ascend.

    `headers` is None when no record of the batch carries any.
    """

    partitions: Int32Array
    offsets: Int64Array
    event_times: Int64Array
    """Kafka timestamps, milliseconds since the epoch."""
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers | None] | None = None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(slots=True, frozen=True)
class Rejection:
    """Why a record cannot be used. `reason` is a short metric label, `detail` one line for a person."""

    reason: str
    detail: str


@dataclass(slots=True)
class DecodedBatch:
    """What the codec read from N records, row i from record i.

    `ends`, `steps` and `sequence_ids` are None when no record of the batch carries that control.
    """

    features: Float32Array
    """(N, F); zeros where the record has no sample."""
    kinds: UInt8Array
    """`Kind` of each record."""
    ends: BoolArray | None = None
    """This sample is its sequence's last."""
    steps: Int64Array | None = None
    """The producer's step, 1-based; 0 where not given."""
    sequence_ids: list[bytes | None] | None = None
    rejections: dict[int, Rejection] = field(default_factory=dict)


@dataclass(slots=True)
class PredictionBatch:
    """M output records in the order in which they are produced.

    M differs from the number of inputs: closing records add rows; duplicates, rejected records and `emit` remove some.
    """

    partitions: Int32Array
    keys: list[bytes]
    event_times: Int64Array
    source_offsets: Int64Array
    first_offsets: Int64Array
    steps: Int32Array
    """The model step of the sample, 1-based."""
    logits: Float32Array
    """(M, K); NaN where there is none."""
    probabilities: Float32Array
    """(M, K); NaN where the model has nothing to say yet."""
    final: BoolArray
    exact: BoolArray
    tainted: BoolArray
    closing: BoolArray
    ended_by: UInt8Array
    """`EndedBy` of each row; NONE where not final."""
    sequence_ids: list[bytes] | None = None
    """The given id of each row, b"" where none was given; None when no row has one."""
    headers: list[Headers | None] | None = None
    """Headers copied from the record that caused each row; None when no row has any."""
    decisions: Int16Array | None = None
    """The answer where a row decides its sequence, -1 elsewhere; None where nothing is decided early."""
    models: UInt8Array | None = None
    """The model of each row's numbers, 0 for the served one; None when all are of that."""

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(slots=True, frozen=True)
class ModelLabel:
    """What an output record says of the model that made it."""

    model: str
    """First 8 hex digits of its fingerprint."""
    calibration: str | None = None
    length: int | None = None
    """Samples in a complete sequence."""


@dataclass(slots=True, frozen=True)
class DeadLetter:
    """A record that could not be used, with everything needed to write it to the dead-letter topic."""

    partition: int
    offset: int
    event_time: int
    key: bytes | None
    value: bytes | None
    headers: Headers | None
    rejection: Rejection
