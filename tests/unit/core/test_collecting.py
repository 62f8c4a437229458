"""Sequences collected from records are those that a worker would have stepped to their end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle import Given, Oracle
from tests.unit.core.helpers import columns, rules
from tests.unit.core.test_routing import cut, histories
from worker.core.collecting import SequenceCollector


@settings(max_examples=300, deadline=None)
@given(
    histories(),
    st.lists(st.integers(1, 12), max_size=12),
    st.sampled_from([1, 3, 5]),
    st.sampled_from(["taint", "reset", "reject"]),
    st.sampled_from([0, 0, 2000]),
)
def test_they_are_the_untainted_sequences_that_the_oracle_ends_by_length(records, sizes, length, on_gap, idle):
    oracle = Oracle(length, on_gap, idle).feed(records)
    expected = [
        (row.key, [list(sample) for sample in row.samples])
        for row in oracle.outputs
        if row.ended_by == "length" and not row.tainted
    ]
    collector = SequenceCollector(rules(length, on_gap, idle))
    found = [
        (key, samples.tolist()) for batch in cut(records, sizes) for key, samples in collector.add(*columns(batch))
    ]
    assert found == expected


def test_a_sequence_that_silence_ended_is_not_continued():
    hour = 3_600_000
    times = [0, 1, 2, *range(hour, hour + 7)]
    records = [Given(0, i, b"a", time, (float(i),)) for i, time in enumerate(times)]
    for idle, first in ((0, 0), (60_000, 3)):
        ((_, samples),) = SequenceCollector(rules(7, idle_timeout_ms=idle)).add(*columns(records))
        assert samples[:, 0].tolist() == list(range(first, first + 7))


@pytest.mark.parametrize(
    ("between", "complete"),
    [
        ([Given(0, 1, b"b", 10_000, (1.0,))], 0),
        ([Given(1, 1, b"b", 10_000, (1.0,))], 1),  # another partition's
        ([Given(0, 1, b"b", 10_000, bad=True)], 1),  # its time is not to be trusted
    ],
)
def test_silence_is_told_by_a_usable_record_of_the_same_partition(between, complete):
    records = [Given(0, 0, b"a", 0, (1.0,)), *between, Given(0, 2, b"a", 1, (2.0,))]
    assert len(SequenceCollector(rules(2, idle_timeout_ms=1000)).add(*columns(records))) == complete


def test_silence_is_told_by_the_highest_event_time_and_not_by_late_records():
    times = [(b"b", 100_000), (b"a", 0), (b"c", 50_000), (b"a", 1)]
    records = [Given(0, offset, key, time, (1.0,)) for offset, (key, time) in enumerate(times)]
    assert len(SequenceCollector(rules(2, idle_timeout_ms=1000)).add(*columns(records))) == 1
