"""Two models at once: a sequence ends with the model that it began with, whatever the batches."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.holding import HoldingStepper
from tests.oracle import Oracle
from tests.unit.core.helpers import Core, ToyModel, ToyStepper, as_expected, rules, toy_logit
from tests.unit.core.test_routing import cut, histories
from worker.core.deciding import UNDECIDED
from worker.core.publishing import Emission
from worker.core.row_formats import RowFormats
from worker.core.sequence import OnGap, SequenceRules
from worker.core.state_row import RowFormat, decode_row

OLD, NEW = RowFormat("11" * 32, 1, 2), RowFormat("22" * 32, 1, 5)
OLD_FACTOR, NEW_FACTOR = 3, 7


@settings(max_examples=300, deadline=None)
@given(
    histories(),
    st.integers(0, 40),
    st.lists(st.integers(1, 12), max_size=8),
    st.sampled_from([0, 2, 5]),
    st.sampled_from([0, 3, 4]),
    st.sampled_from(["taint", "reset", "reject"]),
    st.sampled_from([0, 0, 2000]),
    st.sampled_from([lambda stepper: stepper, HoldingStepper]),
)
def test_old_sequences_end_with_the_old_model_and_new_ones_begin_with_the_new(
    records, change, sizes, old_length, new_length, on_gap, idle, engine
):
    before = Core(rules(old_length, on_gap, idle), row_format=OLD)
    oracle = Oracle(old_length, on_gap, idle)
    if records[:change]:
        before.run(records[:change])
        before.commit()
    oracle.feed(records[:change])
    begun = {(partition, each.first_offset) for (partition, _), each in oracle.open.items()}
    published_before = len(oracle.outputs)

    after = Core(
        SequenceRules(new_length, OnGap(on_gap), idle, (old_length,)),
        row_format=RowFormats((NEW, OLD)),
        models=[ToyModel(engine(ToyStepper(NEW_FACTOR, 5))), ToyModel(engine(ToyStepper(OLD_FACTOR, 2)))],
        emission=Emission(decide_at=(0.5, math.inf)),
    )
    after.disk, after.watermarks = before.disk, before.watermarks
    for partition in before.partitions:
        after.own(partition, store_is_empty=False)
    if idle:
        for partition, index in (before.idle or {}).items():
            after.idle[partition] = index
    oracle.length = new_length
    oracle.feed(records[change:])

    expected, found, numbers, models = oracle.outputs[published_before:], [], [], []
    decisions: list[int] = []
    for batch in cut(records[change:], sizes):
        predictions = after.run(batch)[1]
        found += as_expected(predictions)
        numbers += predictions.predictions.logits[:, 0].tolist()
        decisions += predictions.predictions.decisions.tolist()
        which = predictions.predictions.models
        models += np.zeros(len(predictions.predictions)).tolist() if which is None else which.tolist()
        assert after.table.older_rows() == after.older_on_disk(after.partitions), "of the last commit"
        after.commit()
        assert after.table.older_rows() == after.older_on_disk(after.partitions)
    assert found == [each.__class__(**{**vars(each), "samples": ()}) for each in expected]
    for row, number, model, decision in zip(expected, numbers, models, decisions, strict=True):
        finishing = (row.partition, row.first_offset) in begun
        assert model == finishing
        if finishing:
            assert decision == UNDECIDED or row.final, "each model decides at a threshold of its own"
        elif len(row.samples) == 1 and not row.tainted and not row.closing:
            assert decision != UNDECIDED
        assert number == toy_logit([x for (x,) in row.samples], OLD_FACTOR if finishing else NEW_FACTOR)
    left = dict(after.disk)
    for (partition, key), sequence in oracle.open.items():
        finishing = (partition, sequence.first_offset) in begun
        size = (OLD if finishing else NEW).row_bytes + 4 + len(sequence.name or "")
        row = left.pop((partition, key))
        assert len(row) == size, "at rest a row is its own model's"
        factor = OLD_FACTOR if finishing else NEW_FACTOR
        assert decode_row(row).state[0] == toy_logit([x for (x,) in sequence.samples], factor)
    assert not left
