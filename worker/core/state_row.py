"""The bytes of one stream's state, in memory and at rest.

A row in memory is one element of a structured numpy array: a fixed header and the model's float32 state. At rest
(RocksDB, changelog) it is the same bytes, then the sequence id (variable length), then a CRC-32 (zlib) over all of it.
Everything is little-endian. A format-n reader reads format n-1; there is only format 1 so far.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.core.types import Float32Array, UInt8Array
from worker.errors import RowCorrupted, StateFromAnotherModel

MAGIC = b"LS"
FORMAT = 1
FINGERPRINT_BYTES = 16
"""Of the model's sha256: enough that two models never meet by chance, half the size of all of it."""
SEQUENCE_ID_BYTES_MAX = 1024
CRC_BYTES = 4
HEADER_BYTES = 64
"""The fixed fields before the numbers."""

Rows = npt.NDArray[Any]


class Flag(IntFlag):
    """Bits of a row's `flags`."""

    TAINTED = 1
    DECIDED = 2
    NOT_FINITE = 4
    """The state became non-finite; the sequence has no numbers until it ends."""
    RISING = 8
    """The last emitted change went up (for `emit = changes`)."""
    FALLING = 16


STICKY = int(Flag.TAINTED | Flag.NOT_FINITE | Flag.DECIDED)
"""What holds for all of a sequence once it holds for a step."""


@dataclass(frozen=True, slots=True)
class DecodedRow:
    """One row for a person or a test: header fields by name, sequence id and state."""

    fingerprint: bytes
    header: dict[str, int | list[float]]
    sequence_id: bytes
    state: Float32Array


class RowFormat:
    """Packs and unpacks the rows of one model.

    fingerprint: hex sha256 of the model; outputs: K numbers a step; state_size: S float32.
    """

    def __init__(self, fingerprint: str, outputs: int, state_size: int) -> None:
        self.fingerprint = bytes.fromhex(fingerprint)[:FINGERPRINT_BYTES]
        self.outputs = outputs
        self.state_size = state_size
        self.models: tuple[bytes, ...] = (self.fingerprint,)
        """Of the rows that can be read: the served model first."""
        self.dtype = row_dtype(outputs, state_size)
        self.row_bytes = self.dtype.itemsize
        blank = np.zeros(1, self.dtype)
        blank["magic"] = MAGIC
        blank["format"] = FORMAT
        blank["model"] = np.frombuffer(self.fingerprint, "V16")[0]
        blank["outputs"] = outputs
        blank["state_size"] = state_size
        for numbers in ("logits", "probabilities", "emitted"):
            blank[numbers] = np.nan
        self.blank = blank
        """One row without a sequence: the start of every new stream."""

    def model_of(self, rows: Rows) -> UInt8Array:
        """The place in `models` of each row's model."""
        return np.zeros(len(rows), np.uint8)

    def pack(self, rows: Rows, sequence_ids: Sequence[bytes] | None = None) -> list[bytes]:
        """Rows at rest, in order. `sequence_ids` gives row i's id, b"" for none; None when no row has one."""
        if sequence_ids is not None and any(sequence_ids):
            return self._pack_with_ids(rows, sequence_ids)
        bodies = rows.view(f"V{self.row_bytes}").tolist()
        crcs = np.fromiter(map(zlib.crc32, bodies), "<u4", len(bodies))
        return list(map(bytes.__add__, bodies, crcs.view(f"V{CRC_BYTES}").tolist()))

    def _pack_with_ids(self, rows: Rows, sequence_ids: Sequence[bytes]) -> list[bytes]:
        size, crc32 = self.row_bytes, zlib.crc32
        rows = rows.copy()
        rows["sequence_id_bytes"] = [len(sequence_id) for sequence_id in sequence_ids]
        raw = rows.tobytes()
        bodies = [raw[i * size : (i + 1) * size] + sequence_id for i, sequence_id in enumerate(sequence_ids)]
        return [body + crc32(body).to_bytes(CRC_BYTES, "little") for body in bodies]

    def unpack(self, packed: Sequence[bytes]) -> tuple[Rows, list[bytes]]:
        """Rows in memory and their sequence ids, in order.

        Raises RowCorrupted (magic, length, CRC) and StateFromAnotherModel (other fingerprint).
        """
        size = self.row_bytes
        sequence_ids: list[bytes] = []
        for row in packed:
            check_row(row)
            if row[4:20] != self.fingerprint:
                raise StateFromAnotherModel(
                    f"stored state belongs to model {row[4:8].hex()}, this model is {self.fingerprint[:4].hex()}",
                    "start with the old model, or drop its open sequences with model.on_change = 'reset'",
                )
            sequence_ids.append(row[size:-CRC_BYTES])
        rows = np.frombuffer(b"".join([row[:size] for row in packed]), self.dtype).copy()
        if len(rows) and (
            bool((rows["outputs"] != self.outputs).any())
            or bool((rows["state_size"] != self.state_size).any())
            or rows["sequence_id_bytes"].tolist() != [len(sequence_id) for sequence_id in sequence_ids]
        ):
            raise RowCorrupted("a state row's sizes do not fit the model that wrote it")
        # In memory the ids live beside the rows; a length left here would be packed without its id.
        rows["sequence_id_bytes"] = 0
        return rows, sequence_ids


def row_dtype(outputs: int, state_size: int) -> np.dtype[Any]:
    """The memory layout of a row; every field is naturally aligned and the size a multiple of 8 bytes."""
    floats = 3 * outputs + state_size
    fields: list[Any] = [
        ("magic", "S2"),
        ("format", "u1"),
        ("flags", "u1"),
        ("model", "V16"),
        ("outputs", "<u2"),
        ("sequence_id_bytes", "<u2"),
        ("state_size", "<u4"),
        ("step", "<i4"),
        ("producer_step", "<i8"),
        ("first_offset", "<i8"),
        ("last_offset", "<i8"),
        ("event_time", "<i8"),
        ("logits", "<f4", (outputs,)),
        ("probabilities", "<f4", (outputs,)),
        ("emitted", "<f4", (outputs,)),
        ("state", "<f4", (state_size,)),
    ]
    if floats % 2:
        fields.append(("padding", "V4"))
    return np.dtype(fields)


def check_row(row: bytes) -> None:
    """Raise RowCorrupted unless magic, format, length and CRC are right."""
    if len(row) < HEADER_BYTES + CRC_BYTES or row[:2] != MAGIC:
        raise RowCorrupted("a state row does not begin with the magic bytes")
    if row[2] != FORMAT:
        raise RowCorrupted(f"a state row has format {row[2]}, this release reads format {FORMAT}")
    if zlib.crc32(row[:-CRC_BYTES]) != int.from_bytes(row[-CRC_BYTES:], "little"):
        raise RowCorrupted("a state row's CRC does not match its bytes")


def row_fingerprint(row: bytes) -> bytes:
    """The first 16 bytes of the fingerprint of the model that wrote the row; the row must be checked before."""
    return row[4:20]


def decode_row(row: bytes) -> DecodedRow:
    """A row of any model, for inspection. Raises RowCorrupted."""
    check_row(row)
    outputs = int.from_bytes(row[20:22], "little")
    state_size = int.from_bytes(row[24:28], "little")
    dtype = row_dtype(outputs, state_size)
    id_bytes = int.from_bytes(row[22:24], "little")
    if len(row) != dtype.itemsize + id_bytes + CRC_BYTES:
        raise RowCorrupted("a state row's length does not fit its header")
    one = np.frombuffer(row, dtype, 1)[0]
    names = ("flags", "step", "producer_step", "first_offset", "last_offset", "event_time")
    header: dict[str, int | list[float]] = {name: int(one[name]) for name in names}
    for numbers in ("logits", "probabilities", "emitted"):
        header[numbers] = [float(value) for value in one[numbers]]
    return DecodedRow(row_fingerprint(row), header, row[dtype.itemsize : -CRC_BYTES], one["state"].copy())


def row_event_time(row: bytes) -> int:
    """The event time of the row's last sample, milliseconds; the row must be checked before."""
    return int.from_bytes(row[56:64], "little", signed=True)


def row_last_offset(row: bytes) -> int:
    """The input offset of the row's last sample; the row must be checked before."""
    return int.from_bytes(row[48:56], "little", signed=True)
