"""What a partition's incident means for the open transaction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.group_metadata import GroupMetadata
from worker.core.joint import JOINT_ACTIONS, JointAction, PartitionIncident, joint_action, refuse_to_send_offsets
from worker.core.transaction import TransactionState
from worker.errors import IllegalTransition

I, T, A = PartitionIncident, TransactionState, JointAction  # noqa: E741
MEMBER = GroupMetadata(b"", "group", 3, "member")


def test_a_revoked_partition_gets_one_chance_to_commit():
    assert joint_action(I.REVOKED, T.OPEN) is A.COMMIT_OR_ABORT
    assert joint_action(I.REVOKED, T.IDLE) is A.CLOSE


@pytest.mark.parametrize("transaction", list(T))
def test_a_lost_partition_is_never_committed_on_purpose(transaction):
    assert joint_action(I.LOST, transaction) is not A.COMMIT_OR_ABORT


@pytest.mark.parametrize("incident", [I.REVOKED, I.LOST])
def test_nothing_is_written_for_a_partition_that_goes_while_the_outcome_is_unknown(incident):
    assert joint_action(incident, T.UNKNOWN) is A.DROP


def test_a_commit_under_way_is_waited_for_before_a_revoked_partition_goes():
    assert joint_action(I.REVOKED, T.COMMITTING) is A.AWAIT_OUTCOME


def test_a_partition_lost_during_a_commit_gets_nothing_while_the_others_are_decided():
    assert joint_action(I.LOST, T.COMMITTING) is A.DROP


def test_states_of_a_damaged_store_do_not_stay_in_the_open_transaction():
    assert joint_action(I.STORE_CORRUPTED, T.OPEN) is A.ABORT_AND_SET_ASIDE


@pytest.mark.parametrize("incident", [I.REVOKED, I.LOST])
@pytest.mark.parametrize("transaction", list(T))
def test_partitions_can_go_in_every_state_of_the_transaction(incident, transaction):
    assert (incident, transaction) in JOINT_ACTIONS


@pytest.mark.parametrize(
    ("incident", "transaction"), [(i, t) for i in I for t in T if (i, t) not in JOINT_ACTIONS], ids=str
)
def test_what_cannot_meet_raises(incident, transaction):
    with pytest.raises(IllegalTransition, match=f"{incident.value} while the transaction is {transaction.value}"):
        joint_action(incident, transaction)


def test_offsets_of_unchanged_assignments_may_be_sent():
    assert refuse_to_send_offsets(MEMBER, {0: 1, 1: 2}, {0: 1, 1: 2}) == ""


def test_partitions_without_records_in_the_transaction_may_come_and_change_hands():
    assert refuse_to_send_offsets(MEMBER, {0: 1}, {0: 1, 1: 2}) == ""


def test_offsets_stay_back_while_the_transaction_holds_records_of_a_partition_that_has_gone():
    assert "partition 1 changed hands" in refuse_to_send_offsets(MEMBER, {0: 1, 1: 2}, {0: 1})


@pytest.mark.parametrize(("generation", "member"), [(-1, ""), (-1, "own-uuid"), (3, "")])
def test_offsets_are_not_sent_under_an_identity_that_cannot_fence(generation, member):
    unjoined = GroupMetadata(b"", "group", generation, member)
    assert "cannot fence" in refuse_to_send_offsets(unjoined, {0: 1}, {0: 1})


@given(st.dictionaries(st.integers(0, 5), st.integers(1, 9), min_size=1), st.data())
def test_one_assignment_that_was_replaced_keeps_all_offsets_back(processed, data):
    changed = data.draw(st.sampled_from(sorted(processed)))
    now = {**processed, changed: processed[changed] + 10}
    assert f"partition {changed} " in refuse_to_send_offsets(MEMBER, processed, now)


def test_a_member_that_was_expelled_and_rejoined_may_not_commit_what_it_had_before():
    """Its listener may not have heard of it yet, and the broker would accept the new member's commit."""
    assert "partition 0 changed hands" in refuse_to_send_offsets(MEMBER, {0: (1, "former")}, {0: (1, "now")})
    assert refuse_to_send_offsets(MEMBER, {0: (1, "now")}, {0: (1, "now")}) == ""
