"""Output records as text: fields, numbers, names."""

from __future__ import annotations

import json
import struct
from math import isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.codec.helpers import EXAMPLE, encoder, prediction, prediction_rows, predictions_of
from worker.core.types import EndedBy


def encoded(predictions, **settings) -> dict:
    (value,) = encoder("json", **settings).encode(predictions)
    return json.loads(value)


def test_the_documented_example_character_by_character():
    (value,) = encoder("json").encode(prediction())
    assert value == (
        b'{"sequence":"run-7","step":3,"length":7,"probability":0.731,"logit":0.9997,"exact":false,"final":false,'
        b'"ended_by":null,"closing":false,"tainted":false,"event_time":1732000000123,"first_offset":12301,'
        b'"source":{"topic":"samples","partition":0,"offset":12345},"model":"5f0c9a1e","calibration":"a41b77c2"}'
    )


def test_a_sequence_without_a_given_id_is_named_by_partition_and_first_offset():
    assert encoded(prediction(sequence_id=b"", partitions=3, first_offsets=77))["sequence"] == "3-77"


@pytest.mark.parametrize("name", ['a"b\\c', "{}\n,\u2028", "ü😀", "\x00", "%d %b", " "])
def test_a_given_id_is_escaped(name):
    assert encoded(prediction(sequence_id=name.encode()))["sequence"] == name


def test_given_and_derived_names_share_a_batch():
    given_rows = [{"sequence_id": b"a"}, {"sequence_id": b"", "partitions": 2}, {"sequence_id": b"b"}]
    batch = predictions_of([{**EXAMPLE, **row} for row in given_rows])
    assert [json.loads(value)["sequence"] for value in encoder("json").encode(batch)] == ["a", "2-12301", "b"]


@pytest.mark.parametrize("topic", ["samples", "a.b_c-d", 'quote"%d'])
def test_the_input_topic_is_named_as_the_source(topic):
    source = encoded(prediction(partitions=2, source_offsets=9), topic=topic)["source"]
    assert source == {"topic": topic, "partition": 2, "offset": 9}


def test_what_is_not_known_is_null():
    value = encoded(prediction(probabilities=[nan], logits=[nan]), length=None, calibration=None)
    assert [value[name] for name in ("probability", "logit", "length", "calibration")] == [None] * 4


def test_a_model_of_several_classes_has_arrays_and_null_while_there_is_nothing_to_say():
    batch = prediction(probabilities=[nan, nan, nan], logits=[0.5, -1.0, 2.0])
    value = encoded(batch, outputs=3)
    assert (value["probabilities"], value["logits"]) == (None, [0.5, -1.0, 2.0])
    assert "probability" not in value
    assert "logit" not in value


@pytest.mark.parametrize("reason", [reason for reason in EndedBy if reason])
def test_the_reason_of_the_end_is_its_name(reason):
    assert encoded(prediction(final=True, ended_by=reason))["ended_by"] == reason.name.lower()


@pytest.mark.parametrize("name", ["exact", "final", "closing", "tainted"])
def test_each_flag_is_its_own_field(name):
    value = encoded(prediction(**{name: True}))
    assert [flag for flag in ("exact", "final", "closing", "tainted") if value[flag]] == [name]


def test_no_predictions_are_no_records():
    assert encoder("json").encode(predictions_of([])) == []
    assert encoder("json", outputs=3).encode(predictions_of([], 3)) == []


@pytest.mark.parametrize("outputs", [1, 2])
@given(data=st.data())
def test_every_row_reads_back_as_it_was(outputs, data):
    given_rows = data.draw(st.lists(prediction_rows(outputs), max_size=5))
    values = encoder("json", outputs=outputs).encode(predictions_of(given_rows, outputs))
    assert len(values) == len(given_rows)
    for value, row in zip(map(json.loads, values), given_rows, strict=True):
        derived = f"{row['partitions']}-{row['first_offsets']}"
        assert value["sequence"] == (row["sequence_id"].decode() or derived)
        assert value["source"] == {"topic": "samples", "partition": row["partitions"], "offset": row["source_offsets"]}
        assert (value["step"], value["event_time"], value["first_offset"]) == (
            row["steps"],
            row["event_times"],
            row["first_offsets"],
        )
        assert [value[name] for name in ("exact", "final", "closing", "tainted")] == [
            row[name] for name in ("exact", "final", "closing", "tainted")
        ]
        names = ("probability", "logit") if outputs == 1 else ("probabilities", "logits")
        assert bits(value[names[0]], outputs) == bits(row["probabilities"], outputs)
        assert bits(value[names[1]], outputs) == bits(row["logits"], outputs)


def bits(numbers, outputs: int) -> bytes | None:
    """The float32 bits; None where all is null or NaN."""
    if numbers is None or (isinstance(numbers, list) and all(map(isnan, numbers))):
        return None
    return struct.pack(f"<{outputs}f", *(numbers if isinstance(numbers, list) else [numbers]))
