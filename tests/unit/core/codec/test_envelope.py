"""Keys, timestamps and sizes that no format can make up for."""

from __future__ import annotations

import pytest

from tests.unit.core.codec.helpers import (
    FUTURE_MS_MAX,
    NOW_MS,
    VALUE_BYTES_MAX,
    Raw,
    binary_decoder,
    decode,
    decode_one,
    json_decoder,
)
from worker.core.types import Kind


@pytest.fixture(params=["json", "binary"])
def decoder(request):
    return {"json": json_decoder, "binary": binary_decoder}[request.param]()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"key": None}, "key"),
        ({"key": b""}, "key"),
        ({"event_time": -1}, "timestamp"),
        ({"event_time": NOW_MS + FUTURE_MS_MAX + 1}, "future"),
        ({"value": b"x" * (VALUE_BYTES_MAX + 1)}, "too_large"),
        ({"key": None, "event_time": -1, "value": b"x" * (VALUE_BYTES_MAX + 1)}, "key"),
        ({"event_time": -1, "value": b"x" * (VALUE_BYTES_MAX + 1)}, "timestamp"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_such_a_record_is_rejected_even_without_a_sample(decoder, given, reason):
    batch = [Raw(None), Raw(**{"value": None, **given}), Raw(None)]
    assert [(row.kind, row.reason) for row in decode(decoder, batch)] == [
        (Kind.END, ""),
        (Kind.REJECTED, reason),
        (Kind.END, ""),
    ]


@pytest.mark.parametrize("event_time", [0, NOW_MS - 10**12, NOW_MS, NOW_MS + FUTURE_MS_MAX])
def test_an_old_record_and_one_within_the_allowed_future_are_used(decoder, event_time):
    assert decode_one(decoder, None, event_time=event_time).kind is Kind.END


def test_a_sample_that_is_larger_than_allowed_is_rejected_in_binary_too():
    decoder = binary_decoder(value_bytes_max=11)
    assert decode_one(decoder, bytes(12)).reason == "too_large"
