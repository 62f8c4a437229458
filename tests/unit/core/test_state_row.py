"""State rows survive the way to disk bit for bit, and no damaged byte goes unnoticed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.state_row import RowFormat, decode_row, row_dtype, row_event_time, row_fingerprint
from worker.errors import RowCorrupted, StateFromAnotherModel

FORMAT = RowFormat("cd" * 32, outputs=2, state_size=5)


def some_rows(count: int):
    rows = np.repeat(FORMAT.blank, count)
    rows["step"] = np.arange(count) + 1
    rows["event_time"] = 1_700_000_000_000 + np.arange(count)
    rows["state"] = np.random.default_rng(1).standard_normal((count, 5))
    return rows


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
def test_rows_come_back_with_their_sequence_ids(ids):
    rows = some_rows(len(ids))
    back, back_ids = FORMAT.unpack(FORMAT.pack(rows, ids))
    assert back_ids == ids
    for name in ("step", "event_time", "state", "logits", "flags"):
        np.testing.assert_array_equal(back[name], rows[name])


@given(st.integers(0, 10_000), st.integers(0, 7), st.binary(max_size=9))
def test_every_flipped_bit_is_found(position, bit, sequence_id):
    row = bytearray(FORMAT.pack(some_rows(1), [sequence_id])[0])
    row[position % len(row)] ^= 1 << bit
    with pytest.raises((RowCorrupted, StateFromAnotherModel)):
        FORMAT.unpack([bytes(row)])


@pytest.mark.parametrize("length", [0, 1, 63, 70])
def test_a_truncated_row_is_refused(length):
    with pytest.raises(RowCorrupted):
        FORMAT.unpack([FORMAT.pack(some_rows(1))[0][:length]])


def test_a_row_of_another_model_is_refused_with_both_fingerprints():
    other = RowFormat("ef" * 32, outputs=2, state_size=5)
    with pytest.raises(StateFromAnotherModel, match=r"efefefef.*cdcdcdcd|cdcdcdcd.*efefefef"):
        FORMAT.unpack(other.pack(np.repeat(other.blank, 1)))


def test_a_row_can_be_read_without_its_model():
    row = FORMAT.pack(some_rows(3), [b"", b"run-7", b""])[1]
    decoded = decode_row(row)
    assert (decoded.header["step"], decoded.sequence_id, len(decoded.state)) == (2, b"run-7", 5)
    assert row_event_time(row) == decoded.header["event_time"] == 1_700_000_000_001
    assert row_fingerprint(row) == FORMAT.fingerprint


@pytest.mark.parametrize(("outputs", "state_size"), [(1, 1), (1, 98), (3, 7), (10, 1024)])
def test_rows_in_memory_are_aligned_and_lie_back_to_back(outputs, state_size):
    dtype = row_dtype(outputs, state_size)
    assert dtype.itemsize % 8 == 0
    assert dtype.fields is not None
    assert all(
        offset % np.dtype(field.base).itemsize == 0
        for field, offset, *_ in dtype.fields.values()
        if field.base.kind in "iuf"
    )


def test_a_row_that_was_read_with_an_id_can_be_written_without_one():
    rows, _ = FORMAT.unpack(FORMAT.pack(some_rows(1), [b"run-7"]))
    assert FORMAT.unpack(FORMAT.pack(rows))[1] == [b""]
