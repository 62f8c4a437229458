"""Streams in memory: bounded, read through to the store, and rolled back as if nothing had happened."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.holding import HoldingStepper
from tests.oracle import Given
from tests.unit.core.helpers import FINGERPRINT, Core, ToyModel, ToyStepper, as_expected, rules
from tests.unit.core.test_routing import cut, histories
from worker.core.slots import BYTES_PER_STREAM_OVERHEAD, StreamTable, slots_for
from worker.core.state_row import RowFormat, decode_row


def numbered(count: int, at: int = 0, value: float = 1.0) -> list[Given]:
    return [Given(0, at + i, b"k%04d" % i, at + i, (value,)) for i in range(count)]


def test_streams_beyond_the_cache_are_evicted_and_read_back_with_their_state():
    core, roomy = Core(rules(5), slots_max=40), Core(rules(5), slots_max=4000)
    got, wanted = [], []
    for turn in range(6):
        for start in range(0, 200, 10):
            records = [Given(0, turn * 200 + start + i, b"k%d" % (start + i), turn, (float(turn),)) for i in range(10)]
            for one, rows in ((core, got), (roomy, wanted)):
                published = one.run(records)[1]
                rows.extend(zip(as_expected(published), published.predictions.logits[:, 0].tolist(), strict=True))
                one.commit()
    assert got == wanted
    assert core.table.evicted_total > 0
    assert core.table.streams() <= 40


def test_uncommitted_streams_are_never_evicted():
    core = Core(rules(0), slots_max=20)
    core.run(numbered(15))
    with pytest.raises(MemoryError, match="can be evicted"):
        core.run(numbered(10, at=100)[:10] + [Given(0, 200 + i, b"x%d" % i, 200, (1.0,)) for i in range(10)])


def test_with_an_empty_store_no_row_is_asked_for():
    core = Core(rules(0))
    core.run(numbered(5))
    assert core.table.store_reads_total == 0


def test_a_store_with_rows_is_asked_once_for_each_new_stream():
    core = Core(rules(0))
    core.run(numbered(5))
    core.commit()
    again = Core(rules(0))
    again.disk = core.disk
    again.own(0, store_is_empty=False)
    routed, _ = again.run(numbered(5, at=5) + numbered(5, at=10))
    assert routed.steps.tolist() == [2] * 5 + [3] * 5
    assert again.table.store_reads_total == 5


def test_a_sequence_that_began_and_ended_between_two_commits_writes_nothing():
    core = Core(rules(1))
    core.run(numbered(3))
    assert [row for rows in core.table.changes().values() for row in rows] == []


def test_the_end_of_a_stored_sequence_deletes_its_row_once():
    core = Core(rules(2))
    core.run(numbered(1))
    core.commit()
    core.run(numbered(1, at=1))
    assert core.table.changes() == {0: [(b"k0000", None)]}
    core.commit()
    assert core.disk == {}


def test_a_dropped_partition_frees_its_slots_and_keeps_the_others():
    core = Core(rules(0))
    core.run([Given(0, 0, b"a", 0, (1.0,)), Given(1, 0, b"a", 0, (2.0,))])
    core.commit()
    core.table.drop_partition(0)
    assert core.table.slot_of(0, b"a") is None
    assert core.table.slot_of(1, b"a") is not None


def test_a_partition_with_uncommitted_rows_is_not_dropped():
    core = Core(rules(0))
    core.run(numbered(1))
    with pytest.raises(ValueError, match="uncommitted"):
        core.table.drop_partition(0)


def test_rolling_back_one_partition_leaves_the_others_uncommitted_changes():
    core = Core(rules(0))
    core.run([Given(0, 0, b"a", 0, (1.0,)), Given(1, 0, b"a", 0, (2.0,))])
    core.table.rollback([0])
    assert core.table.touched_count == 1
    assert list(core.table.changes()) == [1]


def test_the_number_of_slots_follows_from_the_bytes_and_never_drops_below_four_batches():
    row_format = RowFormat(FINGERPRINT, 1, 98)
    per_stream = row_format.row_bytes + BYTES_PER_STREAM_OVERHEAD
    assert slots_for(1000 * per_stream, row_format, 10) == 1000
    assert slots_for(1, row_format, 4096) == 4 * 4096


def test_memory_is_only_used_as_streams_come():
    table = StreamTable(RowFormat(FINGERPRINT, 1, 98), 1_000_000)
    table.add_partition(0, store_is_empty=True)
    slots = table.resolve(np.zeros(3, np.int32), [b"a", b"b", b"a"], lambda *_: [])
    assert slots.tolist() == [0, 1, 0]


@settings(max_examples=300, deadline=None)
@given(
    histories(),
    st.integers(1, 3),
    st.sampled_from([["commit", "roll back"], ["commit", "roll back", "go on"]]).flatmap(
        lambda turns: st.lists(st.sampled_from(turns), min_size=60, max_size=60)
    ),
    st.integers(0, 4),
)
def test_states_that_an_engine_holds_are_committed_rolled_back_and_evicted_like_others(records, size, turns, length):
    plain = Core(rules(length))
    # Six streams: in three slots every second batch evicts some, but what is not committed must have room.
    slots_max = 6 if "go on" in turns else 3
    holding = Core(rules(length), slots_max=slots_max, models=[ToyModel(HoldingStepper(ToyStepper()))])
    for batch, turn in zip(cut(records, [size] * 60), turns, strict=False):
        wanted, got = (core.run(batch)[1].predictions for core in (plain, holding))
        assert got.logits.tolist() == wanted.logits.tolist()
        for core in (plain, holding):
            if turn == "commit":
                core.commit()
            elif turn == "roll back":
                core.table.rollback()
    for core in (plain, holding):
        core.commit()
    assert holding.disk == plain.disk


def test_a_row_that_is_looked_at_has_the_state_that_the_engine_holds():
    core = Core(rules(0), models=[ToyModel(HoldingStepper(ToyStepper()))])
    core.run(numbered(2, value=7.0))
    slot = core.table.slot_of(0, b"k0001")
    assert decode_row(core.table.packed(slot)).state[0] == 7.0


@pytest.mark.parametrize("new", [Given(0, 201, b"new", 201, (1.0,)), Given(1, 0, b"new", 201, (1.0,))])
def test_a_stream_that_comes_back_after_long_makes_no_room_for_a_new_one_of_its_own_batch(new):
    core = Core(rules(0), slots_max=8)
    core.run(numbered(8))
    core.commit()
    core.run([Given(0, 100 + i, b"k%04d" % i, 100 + i, (1.0,)) for i in range(1, 8)])
    core.commit()
    routed, _ = core.run([Given(0, 200, b"k0000", 200, (1.0,)), new])
    assert routed.steps.tolist() == [2, 1]
    assert len(set(routed.slots.tolist())) == 2
