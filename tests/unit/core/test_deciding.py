"""A sequence is decided once, at the first step that is sure enough, whatever the batches."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle import Given, Oracle
from tests.unit.core.helpers import Core, rules, toy_logit
from tests.unit.core.test_routing import cut, histories
from worker.core.deciding import UNDECIDED
from worker.core.publishing import Emission, Emit

THRESHOLD = 0.9997
"""Of the toy readout, whose probabilities are near 0 for the first steps and anywhere later."""


def expected(oracle: Oracle) -> list[int]:
    """One row after the other, one set of decided sequences."""
    decided: set[tuple[int, bytes, int]] = set()
    answers = []
    for row in oracle.outputs:
        probability = np.float32(toy_logit([x for (x,) in row.samples]) / np.float32(65521))
        sure = max(probability, 1 - probability) >= THRESHOLD
        last_word = row.final and len(row.samples) >= 3
        sequence = (row.partition, row.key, row.first_offset)
        decides = (sure or last_word) and not row.tainted and not row.closing and sequence not in decided
        if decides:
            decided.add(sequence)
        answers.append(int(probability >= 0.5) if decides else UNDECIDED)
    return answers


@settings(max_examples=300, deadline=None)
@given(
    histories(),
    st.lists(st.integers(1, 12), max_size=12),
    st.sampled_from([0, 3, 5]),
    st.sampled_from(["taint", "reset", "reject"]),
    st.sampled_from([0, 0, 2000]),
)
def test_decisions_are_those_of_one_record_at_a_time(records, sizes, length, on_gap, idle):
    core = Core(rules(length, on_gap, idle), emission=Emission(decide_at=(THRESHOLD,)))
    oracle = Oracle(length, on_gap, idle).feed(records)
    found: list[int] = []
    for batch in cut(records, sizes):
        decisions = core.run(batch)[1].predictions.decisions
        assert decisions is not None
        found += decisions.tolist()
        core.commit()
    assert found == expected(oracle)


def test_a_rolled_back_decision_is_made_again():
    core = Core(rules(), emission=Emission(decide_at=(0.5,)))
    record = Given(0, 0, b"a", 0, (1.0,))
    first = core.run([record])[1].predictions.decisions
    core.table.rollback()
    assert first.tolist() == core.run([record])[1].predictions.decisions.tolist() == [0]


def test_the_deciding_row_is_published_whatever_else_is_left_out():
    core = Core(rules(length=4), emission=Emission(Emit.FINAL, decide_at=(0.5,)))
    predictions = core.run([Given(0, i, b"a", i, (1.0,)) for i in range(4)])[1].predictions
    assert (predictions.steps.tolist(), predictions.decisions.tolist()) == ([1, 4], [0, UNDECIDED])
