"""Float32 in, packed records out."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.codec.helpers import (
    Raw,
    Row,
    binary_decoder,
    control_headers,
    decode,
    decode_one,
    encoder,
    fixture_lines,
    prediction,
    prediction_rows,
    predictions_of,
)
from worker.core.types import EndedBy, Kind

FIXTURES = fixture_lines("input_binary.jsonl")
GOOD = struct.pack("<3f", 1.0, 2.5, -3.0)
GOOD_ROW = Row(Kind.SAMPLE, (1.0, 2.5, -3.0))


@pytest.mark.parametrize("line", FIXTURES, ids=lambda line: line["about"])
def test_each_value_is_what_the_fixture_says(line):
    row = decode_one(binary_decoder(), bytes.fromhex(line["hex"]))
    if "reason" in line:
        assert row == Row(Kind.REJECTED, reason=line["reason"])
    else:
        assert row == Row(Kind.SAMPLE, tuple(line["features"]))


values = (
    st.none()
    | st.binary(min_size=12, max_size=12)
    | st.binary(max_size=25)
    | st.sampled_from([bytes.fromhex(line["hex"]) for line in FIXTURES])
)


@given(st.lists(st.builds(Raw, value=values, headers=control_headers), max_size=8))
def test_a_batch_is_decoded_as_its_records_are_one_by_one(batch):
    decoder = binary_decoder()
    assert decode(decoder, batch) == [decode(decoder, [record])[0] for record in batch]


@given(st.binary(min_size=12, max_size=12))
def test_finite_numbers_arrive_bit_for_bit_and_others_are_rejected(value):
    row = decode_one(binary_decoder(), value)
    if all(map(math.isfinite, struct.unpack("<3f", value))):
        assert struct.pack("<3f", *row.features) == value
    else:
        assert row == Row(Kind.REJECTED, reason="not_finite")


def test_lengths_that_add_up_over_two_records_are_both_wrong():
    decoded = decode(binary_decoder(), [Raw(GOOD), Raw(GOOD[:8]), Raw(GOOD + GOOD[:4])])
    assert [row.reason for row in decoded] == ["", "length", "length"]


def test_an_empty_value_is_a_boundary_only_with_the_end_header():
    assert decode_one(binary_decoder(), b"").reason == "length"
    assert decode_one(binary_decoder(), b"", headers=[("end", b"false")]).reason == "length"
    assert decode_one(binary_decoder(), b"", headers=[("end", b"true")]) == Row(Kind.END)


def test_a_value_of_another_length_is_no_boundary_even_with_the_end_header():
    assert decode_one(binary_decoder(), GOOD[:8], headers=[("end", b"true")]).reason == "length"


def test_a_null_value_is_a_boundary_between_samples():
    assert decode(binary_decoder(), [Raw(GOOD), Raw(None), Raw(GOOD)]) == [GOOD_ROW, Row(Kind.END), GOOD_ROW]


def test_an_output_is_seventeen_bytes_step_probability_flags_and_source_offset():
    (value,) = encoder("binary").encode(prediction(steps=3, probabilities=[0.5], source_offsets=258))
    assert value == b"\x03\x00\x00\x00\x00\x00\x00\x3f\x00\x02\x01\x00\x00\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("changed", "flags"),
    [
        ({"final": True}, 0b0001),
        ({"exact": True}, 0b0010),
        ({"tainted": True}, 0b0100),
        ({"closing": True}, 0b1000),
        ({"ended_by": EndedBy.LENGTH}, 1 << 4),
        ({"ended_by": EndedBy.OPERATOR, "final": True, "closing": True}, 8 << 4 | 0b1001),
    ],
    ids=str,
)
def test_each_flag_has_its_bit_and_the_reason_the_upper_four(changed, flags):
    (value,) = encoder("binary").encode(prediction(**changed))
    assert value[8] == flags


@given(st.lists(prediction_rows(3), max_size=5))
def test_outputs_of_several_classes_read_back_as_they_were(given_rows):
    values = encoder("binary", outputs=3).encode(predictions_of(given_rows, 3))
    assert len(values) == len(given_rows)
    for value, row in zip(values, given_rows, strict=True):
        step, *probabilities, flags, offset = struct.unpack("<i3fBq", value)
        assert (step, offset) == (row["steps"], row["source_offsets"])
        assert struct.pack("<3f", *probabilities) == struct.pack("<3f", *row["probabilities"])
        assert flags >> 4 == row["ended_by"]
        assert [bool(flags >> bit & 1) for bit in range(4)] == [
            row[name] for name in ("final", "exact", "tainted", "closing")
        ]
