"""The life of one assignment of one partition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.partition import TRANSITIONS, PartitionEvent, PartitionMachine, PartitionState
from worker.errors import IllegalTransition

S, E = PartitionState, PartitionEvent


def machine_after(*events: PartitionEvent) -> PartitionMachine:
    machine = PartitionMachine(assignment_id=7)
    for event in events:
        machine.apply(event)
    return machine


def test_a_partition_is_assigned_restored_and_runs():
    machine = PartitionMachine(assignment_id=7)
    assert machine.state is S.ASSIGNED
    assert machine.apply(E.STORE_OPENED) is S.RESTORING
    assert machine.apply(E.RESTORE_PROGRESSED) is S.RESTORING
    assert machine.apply(E.RESTORE_COMPLETED) is S.RUNNING
    assert machine.apply(E.BATCH_ADMITTED) is S.RUNNING
    assert machine.state is S.RUNNING
    assert machine.assignment_id == 7


def test_a_store_that_is_up_to_date_still_passes_through_restoring():
    with pytest.raises(IllegalTransition):
        machine_after(E.RESTORE_COMPLETED)
    assert machine_after(E.STORE_OPENED, E.RESTORE_COMPLETED).state is S.RUNNING


@pytest.mark.parametrize("before", [(), (E.STORE_OPENED,)])
def test_no_record_is_admitted_before_the_restore_has_completed(before):
    with pytest.raises(IllegalTransition):
        machine_after(*before, E.BATCH_ADMITTED)


@pytest.mark.parametrize("before", [(), (E.STORE_OPENED,), (E.STORE_OPENED, E.RESTORE_COMPLETED)])
def test_a_damaged_store_begins_the_assignment_anew(before):
    assert machine_after(*before, E.STORE_CORRUPTED).state is S.ASSIGNED


def test_a_running_partition_keeps_running_after_its_position_was_reset():
    assert machine_after(E.STORE_OPENED, E.RESTORE_COMPLETED, E.POSITION_RESET).state is S.RUNNING


@pytest.mark.parametrize("before", [(), (E.STORE_OPENED,), (E.STORE_OPENED, E.RESTORE_COMPLETED)])
def test_a_partition_can_be_revoked_at_any_time(before):
    assert machine_after(*before, E.REVOKED).state is S.REVOKED


@pytest.mark.parametrize("event", list(E))
def test_nothing_follows_a_revocation(event):
    machine = machine_after(E.REVOKED)
    with pytest.raises(IllegalTransition, match=f"{event.value} while revoked"):
        machine.apply(event)


@given(st.lists(st.sampled_from(E), max_size=30))
def test_an_event_either_follows_the_table_or_raises_and_changes_nothing(events):
    machine = PartitionMachine(assignment_id=1)
    for event in events:
        before = machine.state
        if (before, event) in TRANSITIONS:
            assert machine.apply(event) is TRANSITIONS[before, event]
        else:
            with pytest.raises(IllegalTransition):
                machine.apply(event)
            assert machine.state is before


def test_every_state_can_be_reached():
    assert {S.ASSIGNED, *TRANSITIONS.values()} == set(S)
