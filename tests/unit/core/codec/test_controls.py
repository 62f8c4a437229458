"""Controls in headers, which both formats read alike."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.core.codec.helpers import Raw, Row, binary_decoder, decode, decode_one, json_decoder
from worker.core.types import Kind

SAMPLES = {"json": b'{"features": [1, 2, 3]}', "binary": np.array([1, 2, 3], "<f4").tobytes()}
DECODERS = {"json": json_decoder(), "binary": binary_decoder()}
FEATURES = (1.0, 2.0, 3.0)


@pytest.fixture(params=["json", "binary"])
def read(request):
    """Decodes a good sample with the given headers."""
    return lambda headers: decode_one(DECODERS[request.param], SAMPLES[request.param], headers=headers)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("sequence_id", "Lauf ü".encode())], {"sequence_id": "Lauf ü".encode()}),
        ([("sequence_id", b"x" * 1024)], {"sequence_id": b"x" * 1024}),
        ([("step", b"1")], {"step": 1}),
        ([("step", b"007")], {"step": 7}),
        ([("step", b"9007199254740992")], {"step": 2**53}),
        ([("end", b"true")], {"end": True}),
        ([("end", b"false")], {}),
        ([("sequence_id", None), ("step", None), ("end", None)], {}),
        ([("traceparent", b"\xff"), ("Step", b"x"), ("step", b"2")], {"step": 2}),
        ([("step", b"1"), ("step", b"2")], {"step": 2}),
        ([("step", b"x"), ("step", b"2")], {"step": 2}),
    ],
    ids=str,
)
def test_headers_hold_text_digits_and_true_or_false(read, headers, expected):
    assert read(headers) == Row(Kind.SAMPLE, FEATURES, **expected)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sequence_id", b""),
        ("sequence_id", b"\xff\xfe"),
        ("sequence_id", b"x" * 1025),
        ("step", b""),
        ("step", b"0"),
        ("step", b"-1"),
        ("step", b"+1"),
        ("step", b" 1"),
        ("step", b"1_0"),
        ("step", b"1.0"),
        ("step", b"\xd9\xa1"),
        ("step", b"9007199254740993"),
        ("step", b"1" * 10_000),
        ("step", b"\x00\x00\x00\x01"),
        ("end", b""),
        ("end", b"True"),
        ("end", b"1"),
    ],
    ids=lambda given: repr(given)[:20],
)
def test_any_other_control_is_rejected(read, name, content):
    assert read([(name, content)]) == Row(Kind.REJECTED, reason="control")


@pytest.mark.parametrize("record_format", ["json", "binary"])
def test_a_bad_control_is_its_own_records_affair(record_format):
    decoder, sample = DECODERS[record_format], SAMPLES[record_format]
    batch = [
        Raw(sample, headers=[("step", b"1"), ("sequence_id", b"a")]),
        Raw(sample, headers=[("step", b"x"), ("sequence_id", b"a")]),
        Raw(sample),
        Raw(sample, headers=[("end", b"true")]),
    ]
    assert decode(decoder, batch) == [
        Row(Kind.SAMPLE, FEATURES, step=1, sequence_id=b"a"),
        Row(Kind.REJECTED, reason="control"),
        Row(Kind.SAMPLE, FEATURES),
        Row(Kind.SAMPLE, FEATURES, end=True),
    ]


@pytest.mark.parametrize("record_format", ["json", "binary"])
def test_a_null_value_with_headers_is_a_boundary_that_keeps_its_sequence(record_format):
    row = decode_one(DECODERS[record_format], None, headers=[("sequence_id", b"a"), ("end", b"false")])
    assert row == Row(Kind.END, sequence_id=b"a")


@pytest.mark.parametrize("record_format", ["json", "binary"])
def test_a_record_that_is_rejected_for_its_key_is_not_asked_for_controls(record_format):
    row = decode_one(DECODERS[record_format], SAMPLES[record_format], key=None, headers=[("step", b"x")])
    assert row == Row(Kind.REJECTED, reason="key")
