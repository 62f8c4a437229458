"""The life of the producer's transactions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.transaction import TRANSITIONS, TransactionEvent, TransactionMachine, TransactionState
from worker.errors import IllegalTransition

S, E = TransactionState, TransactionEvent

TO_OPEN = (E.BEGUN, E.PRODUCED)
TO_COMMITTING = (*TO_OPEN, E.OFFSETS_SENT)
TO_UNKNOWN = (*TO_COMMITTING, E.OUTCOME_LOST)


def machine_after(*events: TransactionEvent) -> TransactionMachine:
    machine = TransactionMachine()
    for event in events:
        machine.apply(event)
    return machine


def test_a_transaction_is_begun_filled_given_offsets_and_committed():
    machine = machine_after(*TO_COMMITTING)
    assert machine.state is S.COMMITTING
    assert machine.apply(E.COMMIT_SUCCEEDED) is S.IDLE


@pytest.mark.parametrize("before", [(), TO_OPEN, TO_UNKNOWN])
def test_a_transaction_without_offsets_never_counts_as_committed(before):
    with pytest.raises(IllegalTransition):
        machine_after(*before, E.COMMIT_SUCCEEDED)


def test_nothing_is_produced_once_the_offsets_are_sent():
    with pytest.raises(IllegalTransition):
        machine_after(*TO_COMMITTING, E.PRODUCED)


def test_there_is_one_open_transaction_at_most():
    with pytest.raises(IllegalTransition):
        machine_after(E.BEGUN, E.BEGUN)


def test_a_commit_that_was_not_answered_may_be_asked_again():
    machine = machine_after(*TO_COMMITTING, E.COMMIT_RETRIABLE)
    assert machine.state is S.COMMITTING
    assert machine.apply(E.COMMIT_SUCCEEDED) is S.IDLE


@pytest.mark.parametrize("before", [TO_OPEN, TO_COMMITTING])
def test_a_refused_transaction_is_aborted(before):
    assert machine_after(*before, E.ABORTED).state is S.IDLE


def test_only_recovery_leads_out_of_an_unknown_outcome_and_only_a_fence_ends_it():
    out = {
        event: after for (before, event), after in TRANSITIONS.items() if before is S.UNKNOWN and after is not before
    }
    assert out == {E.RECOVERED: S.IDLE, E.FENCED: S.FENCED}


@pytest.mark.parametrize("before", [(), TO_OPEN, TO_COMMITTING])
def test_recovery_is_for_unknown_outcomes_only(before):
    with pytest.raises(IllegalTransition):
        machine_after(*before, E.RECOVERED)


@pytest.mark.parametrize("before", [(), TO_OPEN, TO_COMMITTING, TO_UNKNOWN])
def test_an_outcome_can_be_lost_at_any_time_also_while_a_new_producer_is_initialised(before):
    assert machine_after(*before, E.OUTCOME_LOST).state is S.UNKNOWN


def test_a_producer_is_replaced_only_between_transactions():
    assert machine_after(E.PRODUCER_REPLACED).state is S.IDLE
    for before in (TO_OPEN, TO_COMMITTING, TO_UNKNOWN):
        with pytest.raises(IllegalTransition):
            machine_after(*before, E.PRODUCER_REPLACED)


@pytest.mark.parametrize("before", [(), TO_OPEN, TO_COMMITTING, TO_UNKNOWN])
def test_a_fence_ends_everything_at_any_time(before):
    machine = machine_after(*before, E.FENCED)
    for event in E:
        with pytest.raises(IllegalTransition, match=f"{event.value} while fenced"):
            machine.apply(event)


@given(st.lists(st.sampled_from(E), max_size=30))
def test_an_event_either_follows_the_table_or_raises_and_changes_nothing(events):
    machine = TransactionMachine()
    for event in events:
        before = machine.state
        if (before, event) in TRANSITIONS:
            assert machine.apply(event) is TRANSITIONS[before, event]
        else:
            with pytest.raises(IllegalTransition):
                machine.apply(event)
            assert machine.state is before
