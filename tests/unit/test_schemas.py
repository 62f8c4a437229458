"""The published schemas hold for what the worker really reads and writes, and refuse what they should."""

from __future__ import annotations

import io
import json
import re
import struct
from functools import cache
from pathlib import Path

import fastavro
import jsonschema
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.codec.helpers import (
    EXAMPLE,
    Raw,
    encoder,
    fixture_lines,
    json_decoder,
    prediction_rows,
    predictions_of,
    record_batch,
)
from worker.core.codec.dead_letter import dead_letter_record
from worker.core.types import DeadLetter, EndedBy, Rejection

SCHEMAS = Path(__file__).parents[2] / "schemas"
MESSAGES = {"input": "Sample", "output": "Prediction", "dead_letter": "DeadLetterHeaders"}


@cache
def json_schema(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@cache
def avro_schema(name: str):
    return fastavro.schema.load_schema(SCHEMAS / f"{name}.avsc")


@pytest.fixture(scope="session")
def protobuf(tmp_path_factory):
    """Message classes by schema, compiled from the .proto files by protoc."""
    compiled = tmp_path_factory.mktemp("protobuf") / "descriptors"
    files = [f"{name}.proto" for name in MESSAGES]
    assert protoc.main(["protoc", f"-I{SCHEMAS}", f"--descriptor_set_out={compiled}", *files]) == 0
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file:
        pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"lstm_worker.{message}"))
        for name, message in MESSAGES.items()
    }


def through_avro(name: str, value: dict) -> dict:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, avro_schema(name), value, strict=True)
    buffer.seek(0)
    return fastavro.schemaless_reader(buffer, avro_schema(name), None)


def through_protobuf(message_class, value: dict) -> dict:
    message = json_format.ParseDict(value, message_class())
    copy = message_class.FromString(message.SerializeToString())
    return json_format.MessageToDict(copy, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def same(got, expected) -> bool:
    """Equal, numbers as float32, a missing or empty field as null; Protobuf's JSON writes int64 as text."""
    if isinstance(expected, dict):
        return set(got) <= {*expected, *NOT_OF_THIS_MODEL} and all(same(got.get(k), v) for k, v in expected.items())
    if isinstance(expected, list):
        return len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(expected, float):
        return struct.pack("<f", got) == struct.pack("<f", expected)
    if isinstance(expected, int) and isinstance(got, str):
        return int(got) == expected
    return (got or None) == (expected or None)


NOT_OF_THIS_MODEL = ("probability", "logit", "probabilities", "logits", "value_size", "value_sha256", "key_size")
NOT_OF_THIS_MODEL += ("key_sha256", "headers_size")


# Input


@pytest.mark.parametrize(
    "line", [line for line in fixture_lines("input_json.jsonl") if "schema" in line], ids=lambda line: line["about"]
)
def test_an_input_value_is_valid_exactly_when_the_fixture_says_so(line):
    assert json_schema("input").is_valid(json.loads(line["value"])) == line["schema"]


def test_every_value_that_the_decoder_takes_is_valid():
    lines = fixture_lines("input_json.jsonl")
    rejections = json_decoder().decode(record_batch([Raw(line["value"].encode()) for line in lines]), 2**60).rejections
    taken = [line for i, line in enumerate(lines) if i not in rejections]
    assert taken
    for line in taken:
        json_schema("input").validate(json.loads(line["value"]))


SAMPLES = [
    {"features": [0.5, -2.0, 3.0]},
    {"features": [0.5], "sequence_id": "run-7", "step": 3, "end": True},
    {"end": True},
]


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_a_sample_goes_through_avro_and_protobuf(sample, protobuf):
    json_schema("input").validate(sample)
    in_avro = through_avro("input", {"features": None, "sequence_id": None, "step": None, "end": None, **sample})
    assert {name: value for name, value in in_avro.items() if value is not None} == sample
    assert same({"features": None, **through_protobuf(protobuf["input"], sample)}, {"features": None, **sample})


# Output


@given(st.lists(prediction_rows(1), max_size=3), st.sampled_from([None, 7]), st.sampled_from([None, "a41b77c2"]))
def test_every_record_that_the_encoder_writes_is_valid(given_rows, length, calibration):
    for value in encoder("json", length=length, calibration=calibration).encode(predictions_of(given_rows)):
        json_schema("output").validate(json.loads(value))


@given(st.lists(prediction_rows(3), max_size=3))
def test_every_record_of_a_model_with_several_outputs_is_valid(given_rows):
    for value in encoder("json", outputs=3).encode(predictions_of(given_rows, 3)):
        json_schema("output").validate(json.loads(value))


@given(st.lists(prediction_rows(1), min_size=1, max_size=5), st.data())
def test_every_record_with_early_decisions_is_valid_and_says_what_was_decided(given_rows, data):
    predictions = predictions_of(given_rows)
    answers = data.draw(st.lists(st.integers(-1, 1), min_size=len(given_rows), max_size=len(given_rows)))
    predictions.decisions = np.array(answers, np.int16)
    for value, answer in zip(map(json.loads, encoder("json").encode(predictions)), answers, strict=True):
        json_schema("output").validate(value)
        assert value["decision"] == (None if answer < 0 else answer)


@given(st.lists(prediction_rows(1), max_size=3), st.lists(prediction_rows(3), max_size=3))
def test_every_record_goes_through_avro(of_one, of_three):
    values = encoder("json").encode(predictions_of(of_one))
    values += encoder("json", outputs=3).encode(predictions_of(of_three, 3))
    for value in map(json.loads, values):
        absent = {"probability": None, "logit": None, "probabilities": None, "logits": None}
        absent["decision"] = None
        in_avro = through_avro("output", {**absent, **value})
        in_avro["event_time"] = round(in_avro["event_time"].timestamp() * 1000)
        if "decision" not in value:
            assert in_avro.pop("decision") is None
        assert same(in_avro, value)


@pytest.mark.parametrize("outputs", [1, 3])
@given(data=st.data())
def test_every_record_goes_through_protobuf(outputs, data, protobuf):
    given_rows = data.draw(st.lists(prediction_rows(outputs), max_size=3))
    for value in encoder("json", outputs=outputs).encode(predictions_of(given_rows, outputs)):
        assert same(through_protobuf(protobuf["output"], json.loads(value)), json.loads(value))


@pytest.mark.parametrize("line", fixture_lines("output_json.jsonl"), ids=lambda line: line["about"])
def test_an_output_value_is_valid_exactly_when_the_fixture_says_so(line):
    assert json_schema("output").is_valid(line["value"]) == line["valid"]


def test_the_schemas_know_every_reason_of_an_end():
    names = [reason.name.lower() for reason in EndedBy if reason]
    assert json_schema("output").schema["properties"]["ended_by"]["enum"] == [None, *names]
    (field,) = [field for field in avro_schema("output")["fields"] if field["name"] == "ended_by"]
    assert field["type"][1]["symbols"] == names
    text = " ".join((SCHEMAS / "README.md").read_text(encoding="utf-8").split())
    assert ", ".join(f"{reason.value} {reason.name.lower()}" for reason in EndedBy if reason) in text


# Binary


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_published_struct_string_reads_the_binary_output(outputs):
    published = re.findall(r"`(<i\d+fBq)`", (SCHEMAS / "README.md").read_text(encoding="utf-8"))
    layout = next(layout for layout in published if f"i{outputs}f" in layout)
    row = {
        **EXAMPLE,
        "probabilities": [0.5] * outputs,
        "logits": [0.0] * outputs,
        "final": True,
        "ended_by": EndedBy.GAP,
    }
    (value,) = encoder("binary", outputs=outputs).encode(predictions_of([row], outputs))
    assert struct.unpack(layout, value) == (3, *[0.5] * outputs, EndedBy.GAP << 4 | 1, 12345)
    assert len(value) == 13 + 4 * outputs


# Dead letters

REASONS = json_schema("dead_letter").schema["properties"]["__lstm_worker.reason"]["enum"]


def dead_letter_headers(reason: str, size: int) -> dict[str, str]:
    letter = DeadLetter(2, 77, 0, b"k" * size, b"v" * size, [("h", b"x" * size)], Rejection(reason, "what is wrong"))
    _, _, headers = dead_letter_record(letter, topic="samples", worker="worker-0", value_bytes_max=100)
    return {name: (content or b"").decode("utf-8") for name, content in headers if name.startswith("__")}


def as_fields(headers: dict[str, str], whole_numbers: frozenset[str]) -> dict[str, str | int]:
    """The published rule: without the prefixes, dots as underscores."""
    fields: dict[str, str | int] = {}
    for name, text in headers.items():
        field = re.sub(r"^__(connect\.errors|lstm_worker)\.", "", name).replace(".", "_")
        fields[field] = int(text) if field in whole_numbers else text
    return fields


NUMBERS = frozenset({"partition", "offset", "value_size", "key_size", "headers_size"})


@pytest.mark.parametrize("size", [5, 60, 120])
@pytest.mark.parametrize("reason", REASONS)
def test_every_dead_letters_headers_are_valid_and_go_through_avro_and_protobuf(reason, size, protobuf):
    headers = dead_letter_headers(reason, size)
    json_schema("dead_letter").validate(headers)
    fields = as_fields(headers, NUMBERS)
    absent = {field["name"]: None for field in avro_schema("dead_letter")["fields"]}
    assert same(through_avro("dead_letter", {**absent, **fields}), fields)
    assert same(through_protobuf(protobuf["dead_letter"], fields), fields)


@pytest.mark.parametrize("line", fixture_lines("dead_letter_headers.jsonl"), ids=lambda line: line["about"])
def test_dead_letter_headers_are_valid_exactly_when_the_fixture_says_so(line):
    assert json_schema("dead_letter").is_valid(line["value"]) == line["valid"]


def test_every_reason_of_a_rejection_is_published_with_its_meaning():
    text = (SCHEMAS / "README.md").read_text(encoding="utf-8")
    assert [reason for reason in REASONS if f"`{reason}`" not in text] == []
    fixtures = fixture_lines("input_json.jsonl") + fixture_lines("input_binary.jsonl")
    used = {line["reason"] for line in fixtures if "reason" in line}
    assert used <= set(REASONS)
