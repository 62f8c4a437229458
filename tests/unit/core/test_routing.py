"""Batches of any mix of streams and controls give what the rules give one record at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle import Given, Oracle
from tests.unit.core.helpers import Core, as_expected, rules, toy_logit


@st.composite
def histories(draw, controls: bool = True) -> list[Given]:
    """Records of two partitions and a few keys, offsets ascending, event times mostly so."""
    records: list[Given] = []
    offsets = [0, 0]
    for _ in range(draw(st.integers(1, 60))):
        partition = draw(st.integers(0, 1))
        offsets[partition] += draw(st.sampled_from([1, 1, 1, 3]))
        time = 1000 * offsets[partition] + draw(st.sampled_from([0, 0, 0, -1500, 2500]))
        record = Given(
            partition,
            offsets[partition],
            draw(st.sampled_from([b"a", b"b", b"c"])),
            max(time, 0),
            (float(draw(st.integers(1, 9))),),
        )
        if controls and draw(st.booleans()):
            kind = draw(st.sampled_from(["end", "tombstone", "step", "id", "bad", "end_id"]))
            record = replace(
                record,
                end=kind == "end",
                features=None if kind in ("tombstone", "end_id", "bad") else record.features,
                step=draw(st.integers(1, 5)) if kind == "step" else None,
                sequence_id=draw(st.sampled_from(["x", "y"])) if kind in ("id", "end_id") else None,
                bad=kind == "bad",
            )
        records.append(record)
    return records


def cut(records: list[Given], sizes: list[int]) -> list[list[Given]]:
    batches, at = [], 0
    for size in sizes:
        batches.append(records[at : at + size])
        at += size
    return [batch for batch in [*batches, records[at:]] if batch]


@settings(max_examples=300, deadline=None)
@given(
    histories(),
    st.lists(st.integers(1, 12), max_size=12),
    st.sampled_from([0, 1, 3, 5]),
    st.sampled_from(["taint", "reset", "reject"]),
    st.sampled_from([0, 0, 2000]),
)
def test_batches_publish_what_the_oracle_says(records, sizes, length, on_gap, idle):
    core = Core(rules(length, on_gap, idle))
    oracle = Oracle(length, on_gap, idle).feed(records)
    got, numbers = [], []
    for batch in cut(records, sizes):
        _, published = core.run(batch)
        got.extend(as_expected(published))
        numbers.extend(published.predictions.logits[:, 0].tolist())
        core.commit()
    for partition in (0, 1):
        expected = [e for e in oracle.outputs if e.partition == partition]
        mine = [i for i, e in enumerate(got) if e.partition == partition]
        assert [got[i] for i in mine] == [replace(e, samples=()) for e in expected]
        assert [numbers[i] for i in mine] == [toy_logit([s[0] for s in e.samples]) for e in expected]


@settings(max_examples=100, deadline=None)
@given(histories(), st.lists(st.integers(1, 12), max_size=12), st.sampled_from([0, 2000]))
def test_what_is_stored_is_exactly_the_open_sequences(records, sizes, idle):
    core = Core(rules(3, "taint", idle))
    for batch in cut(records, sizes):
        core.run(batch)
        core.commit()
    oracle = Oracle(3, "taint", idle).feed(records)
    assert set(core.disk) == set(oracle.open)


@settings(max_examples=100, deadline=None)
@given(histories(), st.integers(1, 30), st.sampled_from([0, 2000]))
def test_a_rolled_back_batch_leaves_no_trace(records, size, idle):
    batches = cut(records, [size])
    core, plain = Core(rules(3, "taint", idle)), Core(rules(3, "taint", idle))
    plain_rows, rows = [], []
    for batch in batches:
        watermarks = dict(core.watermarks)
        core.run(batch)
        slots = core.table.rollback()
        core.watermarks = watermarks
        if core.idle is not None:
            for slot in slots.tolist():
                header = core.table.rows[slot]
                for partition, index in core.idle.items():
                    if header["step"] > 0 and core.table.slot_of(partition, core.table.key_of(slot)) == slot:
                        index.watch(core.table.key_of(slot), int(header["event_time"]))
        rows.extend(as_expected(core.run(batch)[1]))
        plain_rows.extend(as_expected(plain.run(batch)[1]))
        core.commit()
        plain.commit()
    assert rows == plain_rows
    assert core.disk == plain.disk


def test_streams_without_controls_count_their_steps_modulo_the_length():
    core = Core(rules(3))
    records = [Given(0, i, b"a", i, (1.0,)) for i in range(7)]
    routed, published = core.run(records)
    assert routed.steps.tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert published.predictions.final.tolist() == [False, False, True, False, False, True, False]
    assert published.predictions.first_offsets.tolist() == [0, 0, 0, 3, 3, 3, 6]


def test_the_order_of_rows_is_the_order_of_records_when_only_some_streams_have_controls():
    core = Core(rules(0))
    records = [
        Given(0, 0, b"a", 0, (1.0,)),
        Given(0, 1, b"b", 1, (2.0,)),
        Given(0, 2, b"a", 2, (3.0,), end=True),
        Given(0, 3, b"b", 3, (4.0,)),
        Given(0, 4, b"a", 4),
    ]
    _, published = core.run(records)
    assert published.predictions.source_offsets.tolist() == [0, 1, 2, 3]
    assert published.predictions.keys == [b"a", b"b", b"a", b"b"]


def test_a_boundary_without_a_sequence_is_only_counted():
    routed, published = Core(rules(0)).run([Given(0, 0, b"a", 0)])
    assert len(published.predictions) == 0
    assert routed.counts["boundaries_without_sequence"] == 1


def test_watermarks_advance_with_every_usable_record_and_not_with_rejected_ones():
    core = Core(rules(0))
    core.run([Given(0, 0, b"a", 50, (1.0,)), Given(0, 1, b"a", 90, bad=True), Given(1, 0, b"a", 7, (1.0,))])
    assert core.watermarks == {0: 50, 1: 7}


def test_a_stream_whose_stored_step_passed_a_shortened_length_ends_with_its_next_sample():
    core = Core(rules(9))
    core.run([Given(0, i, b"a", i, (1.0,)) for i in range(5)])
    core.rules = rules(3)
    routed, published = core.run([Given(0, 5, b"a", 5, (1.0,))])
    assert routed.steps.tolist() == [6]
    assert published.predictions.final.tolist() == [True]


def test_not_finite_numbers_stay_null_until_the_sequence_ends_and_touch_no_other_stream():
    core = Core(rules(4))
    records = [
        Given(0, 0, b"a", 0, (1.0,)),
        Given(0, 1, b"b", 1, (2.0,)),
        Given(0, 2, b"a", 2, (float("nan"),)),
        Given(0, 3, b"a", 3, (1.0,)),
        Given(0, 4, b"b", 4, (2.0,)),
        Given(0, 5, b"a", 5, (1.0,)),
        Given(0, 6, b"a", 6, (5.0,)),
    ]
    _, published = core.run(records)
    p = published.predictions
    mine = [i for i, key in enumerate(p.keys) if key == b"a"]
    assert np.isnan(p.logits[mine, 0]).tolist() == [False, True, True, True, False]
    assert p.tainted[mine].tolist() == [False, True, True, True, False]
    assert p.final[mine].tolist() == [False, False, False, True, False]
    other = [i for i, key in enumerate(p.keys) if key == b"b"]
    assert np.isfinite(p.logits[other]).all()
    assert not p.tainted[other].any()
