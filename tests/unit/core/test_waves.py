from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.core.waves import waves

SLOTS = st.lists(st.integers(0, 6), max_size=40).map(lambda slots: np.array(slots, np.int64))


@given(SLOTS)
def test_each_record_is_in_exactly_one_wave(slots):
    _, cut = waves(slots)

    assert sorted(record for wave in cut for record in wave.tolist()) == list(range(len(slots)))


@given(SLOTS)
def test_no_slot_repeats_within_a_wave(slots):
    for wave in waves(slots)[1]:
        assert len(set(slots[wave].tolist())) == len(wave)


@given(SLOTS)
def test_wave_k_holds_the_kth_record_of_each_slot(slots):
    seen: dict[int, int] = {}
    turn = []
    for slot in slots.tolist():
        turn.append(seen.get(slot, 0))
        seen[slot] = turn[-1] + 1

    for k, wave in enumerate(waves(slots)[1]):
        assert [turn[record] for record in wave.tolist()] == [k] * len(wave)


@given(SLOTS)
def test_every_wave_is_a_prefix_of_the_distinct_slots(slots):
    distinct, cut = waves(slots)

    assert sorted(distinct.tolist()) == sorted(set(slots.tolist()))
    for wave in cut:
        assert slots[wave].tolist() == distinct[: len(wave)].tolist()


def test_slots_that_do_not_repeat_are_one_wave_in_record_order():
    distinct, cut = waves(np.array([5, 2, 9]))

    assert distinct.tolist() == [5, 2, 9]
    assert [wave.tolist() for wave in cut] == [[0, 1, 2]]


def test_an_empty_batch_has_no_waves():
    assert waves(np.array([], np.int64))[1] == []
