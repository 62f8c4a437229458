"""Dead letters: the original record, why it could not be used, and nothing too large for the topic."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.core.codec.dead_letter import dead_letter_record
from worker.core.types import DeadLetter, Headers, Rejection

BYTES_MAX = 100
NOT_JSON = Rejection("not_json", "the value is not JSON")


def record(
    key: bytes | None = b"stream",
    value: bytes | None = b"nope",
    headers: Headers | None = None,
    rejection: Rejection = NOT_JSON,
):
    letter = DeadLetter(2, 77, 1_732_000_000_000, key, value, headers, rejection)
    return dead_letter_record(letter, topic="samples", worker="worker-0", value_bytes_max=BYTES_MAX)


def own(headers: Headers) -> dict[str, str]:
    """The headers that the worker added, without their common beginnings."""
    prefixes = ("__connect.errors.", "__lstm_worker.")
    return {
        name.removeprefix(prefix): content.decode("utf-8")
        for name, content in headers
        for prefix in prefixes
        if name.startswith(prefix) and content is not None
    }


def test_key_value_and_headers_are_the_originals():
    original: Headers = [("traceparent", b"00-1"), ("step", b"\xff"), ("empty", None), ("step", b"2")]
    key, value, headers = record(headers=original)
    assert (key, value) == (b"stream", b"nope")
    assert headers[:4] == original


def test_headers_of_an_earlier_dead_letter_stay_and_the_last_of_equal_names_is_the_workers():
    original: Headers = [("__connect.errors.topic", b"another")]
    _, _, headers = record(headers=original)
    assert headers[0] == original[0]
    assert [content for name, content in headers if name == "__connect.errors.topic"][-1] == b"samples"


def test_a_null_key_and_a_null_value_stay_null():
    key, value, _ = record(key=None, value=None, rejection=Rejection("key", "the key is null"))
    assert (key, value) == (None, None)


def test_headers_say_what_kafka_connects_dead_letters_say():
    assert own(record()[2]) == {
        "topic": "samples",
        "partition": "2",
        "offset": "77",
        "connector.name": "lstm-worker",
        "task.id": "worker-0",
        "stage": "VALUE_CONVERTER",
        "class.name": "worker.core.codec.InputDecoder",
        "exception.class.name": "worker.core.types.Rejection",
        "exception.message": "not_json: the value is not JSON",
        "exception.stacktrace": "worker.core.types.Rejection: not_json: the value is not JSON",
        "reason": "not_json",
    }


@pytest.mark.parametrize(
    ("reason", "stage"),
    [
        ("key", "KEY_CONVERTER"),
        ("timestamp", "TRANSFORMATION"),
        ("future", "TRANSFORMATION"),
        ("gap", "TRANSFORMATION"),
        ("control", "VALUE_CONVERTER"),
        ("too_large", "VALUE_CONVERTER"),
    ],
)
def test_the_stage_tells_which_part_of_the_record_was_at_fault(reason, stage):
    assert own(record(rejection=Rejection(reason, "detail"))[2])["stage"] == stage


def test_a_value_that_does_not_fit_is_cut_and_its_size_and_hash_are_told():
    original = bytes(range(256)) * 40_000
    key, value, headers = record(value=original)
    assert (key, value) == (b"stream", original[: BYTES_MAX - len(b"stream")])
    assert own(headers)["value.size"] == str(len(original))
    assert own(headers)["value.sha256"] == hashlib.sha256(original).hexdigest()


def test_a_value_that_just_fits_is_kept_whole():
    original = b"x" * (BYTES_MAX - len(b"stream"))
    _, value, headers = record(value=original)
    assert value == original
    assert "value.size" not in own(headers)


def test_headers_that_leave_no_room_are_left_out_and_their_size_told():
    _, value, headers = record(headers=[("big", b"x" * 200)])
    assert value == b"nope"
    assert [name for name, _ in headers if name == "big"] == []
    assert own(headers)["headers.size"] == "203"


def test_a_key_that_does_not_fit_is_cut_last():
    key, value, headers = record(key=b"k" * 200, headers=[("a", b"b")])
    assert (key, value) == (b"k" * BYTES_MAX, b"")
    assert own(headers)["key.sha256"] == hashlib.sha256(b"k" * 200).hexdigest()


@example(key=None, value=None, headers=[("__connect.errors.topic", b"\x80")])
@given(
    key=st.none() | st.binary(max_size=200),
    value=st.none() | st.binary(max_size=200),
    headers=st.none()
    | st.lists(st.tuples(st.text("aü😀", max_size=40), st.none() | st.binary(max_size=80)), max_size=3),
)
def test_what_is_kept_of_any_record_fits(key, value, headers):
    kept_key, kept_value, kept_headers = record(key=key, value=value, headers=headers)
    given_headers = headers or []
    originals = given_headers if kept_headers[: len(given_headers)] == given_headers else []
    size = len(kept_key or b"") + len(kept_value or b"")
    size += sum(len(name.encode()) + len(content or b"") for name, content in originals)
    assert size <= BYTES_MAX
    assert (kept_key is None, kept_value is None) == (key is None, value is None)


def test_a_long_explanation_is_cut():
    message = own(record(rejection=Rejection("missing_features", "the object has no " + "x, " * 10_000))[2])
    assert len(message["exception.message"]) == 1000
