"""Sequences collected from records are those that a worker would have stepped to their end."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle import Oracle
from tests.unit.core.helpers import columns, rules
from tests.unit.core.test_routing import cut, histories
from worker.core.collecting import SequenceCollector


@settings(max_examples=300, deadline=None)
@given(
    histories(),
    st.lists(st.integers(1, 12), max_size=12),
    st.sampled_from([1, 3, 5]),
    st.sampled_from(["taint", "reset", "reject"]),
)
def test_they_are_the_untainted_sequences_that_the_oracle_ends_by_length(records, sizes, length, on_gap):
    oracle = Oracle(length, on_gap).feed(records)
    expected = [
        (row.key, [list(sample) for sample in row.samples])
        for row in oracle.outputs
        if row.ended_by == "length" and not row.tainted
    ]
    collector = SequenceCollector(rules(length, on_gap))
    found = [
        (key, samples.tolist()) for batch in cut(records, sizes) for key, samples in collector.add(*columns(batch))
    ]
    assert found == expected
