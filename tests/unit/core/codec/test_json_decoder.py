"""What a JSON value is to its stream, alone and in any company."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.core.codec.helpers import (
    CHARACTERS,
    NOW_MS,
    Raw,
    Row,
    control_headers,
    decode,
    decode_one,
    fixture_lines,
    json_decoder,
    record_batch,
)
from worker.core.types import Kind
from worker.errors import ConfigError

GOOD = b'{"features": [1, 2.5, -3]}'
GOOD_ROW = Row(Kind.SAMPLE, (1.0, 2.5, -3.0))
FIXTURES = fixture_lines("input_json.jsonl")

texts = st.text(CHARACTERS, max_size=3)
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "features": st.lists(float32s, min_size=3, max_size=3) | st.lists(anything, max_size=4) | anything,
        "sequence_id": texts | anything,
        "step": st.integers(0, 5) | anything,
        "end": st.booleans() | anything,
        "x": anything,
    },
)
samples = st.lists(float32s, min_size=3, max_size=3).map(lambda numbers: json.dumps({"features": numbers}).encode())
# Values that are no JSON alone but would be when joined with their neighbours.
pieces = st.sampled_from(
    [
        b'{"features": [1',
        b"2, 3]}",
        GOOD + b"," + GOOD,
        b'{"a": "}',
        b'{"}',
        b'{"a": [{}',
        b'{}], "features": [1, 2, 3]}',
    ]
)
values = (
    st.none()
    | samples
    | objects.map(lambda value: json.dumps(value).encode())
    | anything.map(lambda value: json.dumps(value).encode())
    | pieces
    | st.binary(max_size=12)
    | st.sampled_from([line["value"].encode() for line in FIXTURES])
)
records = st.builds(
    Raw,
    value=values,
    key=st.sampled_from([b"stream", b"stream", b"", None]),
    headers=control_headers,
    event_time=st.sampled_from([NOW_MS, NOW_MS, -1, 0, NOW_MS + 10**9]),
)


@pytest.mark.parametrize("line", FIXTURES, ids=lambda line: line["about"])
def test_each_value_is_what_the_fixture_says(line):
    row = decode_one(json_decoder(), line["value"].encode())
    expected = {"sample": Kind.SAMPLE, "end": Kind.END}.get(line.get("kind"), Kind.REJECTED)
    assert (row.kind, row.reason) == (expected, line.get("reason", ""))


@pytest.mark.parametrize("line", FIXTURES, ids=lambda line: line["about"])
def test_a_value_does_not_change_what_its_neighbours_are(line):
    value = line["value"].encode()
    decoded = decode(json_decoder(), [Raw(GOOD), Raw(value), Raw(GOOD)])
    assert decoded == [GOOD_ROW, decode_one(json_decoder(), value), GOOD_ROW]


@given(st.lists(records, max_size=8))
@example([Raw(b'{"features": [1'), Raw(b"2, 3]}"), Raw(GOOD + b"," + GOOD)])
@example([Raw(b'{"a": [{}'), Raw(b'{}], "features": [1, 2, 3]}'), Raw(GOOD + b"," + GOOD)])
def test_a_batch_is_decoded_as_its_records_are_one_by_one(batch):
    decoder = json_decoder()
    assert decode(decoder, batch) == [decode(decoder, [record])[0] for record in batch]


@given(st.lists(st.lists(float32s, min_size=3, max_size=3), min_size=1, max_size=8))
def test_float32_numbers_arrive_bit_for_bit(vectors):
    decoded = decode(json_decoder(), [Raw(json.dumps({"features": vector}).encode()) for vector in vectors])
    expected = [struct.pack("<3f", *vector) for vector in vectors]
    assert [struct.pack("<3f", *row.features) for row in decoded] == expected


@given(objects)
def test_an_object_is_a_sample_only_when_everything_in_it_is_right(value):
    text = json.dumps(value)
    row = decode_one(json_decoder(), text.encode())
    assert (row.kind is Kind.SAMPLE) == is_sample(text)


def is_sample(text: str) -> bool:
    """The rule again, in plain Python over the standard library's parser."""

    def refuse(literal: str) -> None:
        raise ValueError(literal)

    try:
        value = json.loads(text, parse_constant=refuse)
        numbers = value["features"]
        struct.pack("<3f", *numbers)  # raises OverflowError beyond float32
    except (ValueError, KeyError, TypeError, struct.error, OverflowError):
        return False
    step, end, sequence_id = value.get("step"), value.get("end"), value.get("sequence_id")
    return (
        type(numbers) is list
        and all(type(number) in (int, float) for number in numbers)
        and (step is None or (type(step) is int and 1 <= step <= 2**53))
        and (end is None or type(end) is bool)
        and (sequence_id is None or (type(sequence_id) is str and sequence_id != ""))
    )


def test_a_null_value_is_a_boundary():
    assert decode(json_decoder(), [Raw(GOOD), Raw(None), Raw(GOOD)]) == [GOOD_ROW, Row(Kind.END), GOOD_ROW]


def test_a_boundary_keeps_the_controls_that_say_which_sequence_it_ends():
    value = b'{"end": true, "sequence_id": "run-7", "step": 8}'
    assert decode_one(json_decoder(), value) == Row(Kind.END, sequence_id=b"run-7", step=8)


def test_controls_of_a_sample_are_read_from_its_fields():
    value = b'{"features": [1, 2.5, -3], "sequence_id": "\xc3\xbc", "step": 4, "end": true}'
    row = decode_one(json_decoder(), value)
    assert row == Row(Kind.SAMPLE, (1.0, 2.5, -3.0), sequence_id="ü".encode(), step=4, end=True)


def test_a_field_wins_over_a_header_of_the_same_name():
    given_headers = [("step", b"9"), ("sequence_id", b"by-header"), ("end", b"true")]
    value = b'{"features": [1, 2.5, -3], "step": 4, "end": false}'
    row = decode_one(json_decoder(), value, headers=given_headers)
    assert (row.step, row.sequence_id, row.end) == (4, b"by-header", False)


def test_end_false_as_a_field_outvotes_the_header_for_an_object_without_features():
    assert decode_one(json_decoder(), b'{"end": false}', headers=[("end", b"true")]).reason == "missing_features"
    assert decode_one(json_decoder(), b"{}", headers=[("end", b"true")]).kind is Kind.END


def test_a_rejected_record_has_no_features_and_no_controls():
    row = decode_one(json_decoder(), b'{"features": [1, 2, "3"], "step": 4, "end": true, "sequence_id": "a"}')
    assert row == Row(Kind.REJECTED, reason="not_a_number")


def test_a_value_of_just_the_allowed_size_is_used_beside_one_that_is_too_large():
    decoded = decode(json_decoder(value_bytes_max=len(GOOD)), [Raw(GOOD), Raw(GOOD + b" ")])
    assert [row.reason for row in decoded] == ["", "too_large"]


def test_a_value_that_is_too_large_is_not_parsed():
    size = len(GOOD)
    assert decode_one(json_decoder(value_bytes_max=size), GOOD) == GOOD_ROW
    assert decode_one(json_decoder(value_bytes_max=size - 1), GOOD).reason == "too_large"
    assert decode_one(json_decoder(), b"x" * 10_000_000).reason == "too_large"


NAMED = {"names": ("x", "y", "z")}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"z": 3, "x": 1, "y": 2}', Row(Kind.SAMPLE, (1.0, 2.0, 3.0))),
        (b'{"x": 1, "y": 2, "z": 3, "step": 2, "w": []}', Row(Kind.SAMPLE, (1.0, 2.0, 3.0), step=2)),
        (b'{"end": true}', Row(Kind.END)),
        (b'{"x": null, "end": true}', Row(Kind.END)),
        (b'{"x": 1, "y": 2}', Row(Kind.REJECTED, reason="missing_features")),
        (b'{"y": 2, "z": 3, "end": true}', Row(Kind.REJECTED, reason="missing_features")),
        (b'{"x": 1, "y": null, "z": 3}', Row(Kind.REJECTED, reason="missing_features")),
        (b'{"features": [1, 2, 3]}', Row(Kind.REJECTED, reason="missing_features")),
        (b'{"x": 1, "y": "2", "z": 3}', Row(Kind.REJECTED, reason="not_a_number")),
        (b'{"x": 1, "y": [2], "z": 3}', Row(Kind.REJECTED, reason="not_a_number")),
        (b'{"x": 1, "y": 1e39, "z": 3}', Row(Kind.REJECTED, reason="not_finite")),
    ],
    ids=repr,
)
def test_named_fields_are_the_features_in_the_order_of_their_names(value, expected):
    assert decode_one(json_decoder(**NAMED), value) == expected
    good = b'{"x": 1, "y": 2.5, "z": -3}'
    assert decode(json_decoder(**NAMED), [Raw(good), Raw(value)]) == [GOOD_ROW, expected]


def test_one_named_field_is_a_model_of_one_feature():
    decoder = json_decoder(features=1, names=("load",))
    decoded = decode(decoder, [Raw(b'{"load": 0.5}'), Raw(b'{"load": [0.5]}'), Raw(b'{"load": "0.5"}')])
    assert [row.features for row in decoded] == [(0.5,), (0.0,), (0.0,)]
    assert [row.reason for row in decoded] == ["", "not_a_number", "not_a_number"]


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (("x", "y"), "has 2 names, the model takes 3"),
        (("x", "y", "x"), "names a field twice"),
        (("x", "y", "step"), "step is a control"),
    ],
)
def test_names_that_do_not_fit_are_a_mistake_of_the_configuration(names, complaint):
    with pytest.raises(ConfigError, match=complaint):
        json_decoder(names=names)


def test_a_rejection_tells_which_feature_is_wrong():
    cases = {
        b'{"features": [1, "2", 3]}': "features[1] is a JSON string, not a number",
        b'{"features": [1, 2, 1e39]}': "features[2] is too large for a float32",
        b'{"features": [1, 2]}': "2 features, the model takes 3",
        b'{"features": "1,2,3"}': "features is a JSON string, not an array",
        b"[]": "the value is a JSON array, not an object",
        b'{"features": [1, 2, 3], "step": "1"}': "step is a JSON string, not an integer from 1 to 9007199254740992",
    }
    batch = record_batch([Raw(value) for value in cases])
    rejections = json_decoder().decode(batch, NOW_MS).rejections
    assert [rejections[i].detail for i in range(len(cases))] == list(cases.values())


def test_an_empty_batch_gives_an_empty_batch():
    assert decode(json_decoder(), []) == []
