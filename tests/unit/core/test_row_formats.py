"""Rows of several models in one table: at rest each is what its own model would write."""

from __future__ import annotations

import numpy as np
import pytest

from worker.core.row_formats import RowFormats
from worker.core.state_row import RowFormat
from worker.errors import RowCorrupted, StateFromAnotherModel

SMALL, LARGE, OTHER = RowFormat("11" * 32, 1, 2), RowFormat("22" * 32, 1, 5), RowFormat("33" * 32, 1, 3)


def rows_of(form: RowFormat, count: int, seed: int):
    rows = np.repeat(form.blank, count)
    generator = np.random.default_rng(seed)
    rows["step"] = generator.integers(1, 9, count)
    rows["last_offset"] = np.arange(count)
    rows["state"] = generator.standard_normal((count, form.state_size))
    return rows


@pytest.mark.parametrize("formats", [(SMALL, LARGE, OTHER), (LARGE, OTHER, SMALL)])
def test_mixed_rows_come_back_byte_for_byte(formats):
    table = RowFormats(formats)
    ids = [b"", b"morning", b"", b"x"] * 3
    packed = [row for form in formats for row in form.pack(rows_of(form, 4, form.state_size), ids[:4])]
    order = np.random.default_rng(1).permutation(len(packed)).tolist()
    mixed = [packed[i] for i in order]
    rows, found = table.unpack(mixed)
    assert table.model_of(rows).tolist() == [i // 4 for i in order]
    assert found == [ids[i] for i in order]
    assert table.pack(rows, found) == mixed


def test_a_blank_row_is_the_served_models():
    table = RowFormats((SMALL, LARGE))
    row = table.blank.copy()
    row["step"] = 1
    assert table.model_of(row).tolist() == [0]
    assert len(table.pack(row)[0]) == SMALL.row_bytes + 4


def test_a_row_of_a_model_that_is_not_there_is_refused_with_its_name():
    with pytest.raises(StateFromAnotherModel, match=r"33333333.*model.previous"):
        RowFormats((SMALL, LARGE)).unpack(OTHER.pack(rows_of(OTHER, 1, 0)))


def test_a_damaged_row_is_damaged_and_not_of_another_model():
    row = bytearray(OTHER.pack(rows_of(OTHER, 1, 0))[0])
    row[10] ^= 1
    with pytest.raises(RowCorrupted):
        RowFormats((SMALL, LARGE)).unpack([bytes(row)])
