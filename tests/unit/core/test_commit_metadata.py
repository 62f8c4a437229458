"""The metadata of an offset commit: a foreign one is never taken for ours."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.commit_metadata import BYTES_MAX, OFFSET_MAX, CommitMetadata, parse_metadata

OURS = {"v": 1, "changelog": 7, "watermark": 1700000000000, "model": "0123abcd", "worker": "pod-0", "topic_id": ""}

written = st.builds(
    CommitMetadata,
    changelog_next_offset=st.integers(0, OFFSET_MAX),
    watermark_ms=st.integers(-1, OFFSET_MAX),
    model=st.text("0123456789abcdef", min_size=8, max_size=8),
    worker=st.text(max_size=200),
    topic_id=st.text(st.characters(codec="ascii"), max_size=22),
    partitions=st.integers(0, 10_000),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(written)
def test_what_was_written_is_read_back(metadata):
    assert parse_metadata(metadata.encode()) == metadata


def test_a_reset_is_read_back_and_lies_within_the_changelog():
    metadata = CommitMetadata(7, -1, "0123abcd", "reset", "id", 4, changelog_first_offset=7)
    assert parse_metadata(metadata.encode()) == metadata
    assert parse_metadata(json.dumps({**OURS, "first": 8})) is None


@given(written)
def test_it_is_one_line_of_ascii_that_the_broker_can_hold(metadata):
    text = metadata.encode()
    assert text.isascii()
    assert "\n" not in text
    assert len(text) <= BYTES_MAX


def test_a_worker_name_of_any_length_fits():
    metadata = CommitMetadata(OFFSET_MAX, OFFSET_MAX, "0123abcd", "\U0001f980" * 5000, "x" * 22)
    found = parse_metadata(metadata.encode())
    assert found is not None
    assert found.changelog_next_offset == OFFSET_MAX


@pytest.mark.parametrize(
    "text",
    ["", "null", "17", "[]", "{}", "no json", '{"v":1}', "[" * 4000, "9" * 4090, json.dumps(OURS) + " " * 5000],
    ids=lambda text: text[:12],
)
def test_foreign_metadata_is_none(text):
    assert parse_metadata(text) is None


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": None},
        {"changelog": -1},
        {"changelog": "7"},
        {"changelog": 7.0},
        {"changelog": True},
        {"changelog": OFFSET_MAX + 1},
        {"watermark": -2},
        {"watermark": None},
        {"model": "0123ABCD"},
        {"model": "0123abc"},
        {"model": 7},
        {"worker": None},
        {"topic_id": 5},
    ],
    ids=str,
)
def test_one_wrong_field_makes_it_foreign(change):
    assert parse_metadata(json.dumps(OURS)) is not None
    assert parse_metadata(json.dumps({**OURS, **change})) is None


@pytest.mark.parametrize("missing", ["v", "changelog", "watermark", "model", "worker"])
def test_one_missing_field_makes_it_foreign(missing):
    assert parse_metadata(json.dumps({name: value for name, value in OURS.items() if name != missing})) is None


@given(st.dictionaries(st.sampled_from(sorted(OURS)), json_values), st.text(max_size=50))
def test_nothing_that_the_broker_returns_makes_it_raise(changes, text):
    parse_metadata(text)
    found = parse_metadata(json.dumps({**OURS, **changes}))
    assert found is None or (found.changelog_next_offset >= 0 and found.watermark_ms >= -1)
