"""What to do when something happens to a partition while a transaction is in some state, as a table.

The coupling of the two machines is where exactly-once goes wrong: a transaction holds records of several partitions,
and the broker checks member and generation, not who owns a partition. An empty cell is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from worker.core.group_metadata import GroupMetadata
from worker.core.transaction import TransactionState
from worker.errors import IllegalTransition


class PartitionIncident(Enum):
    """What happened to a partition whose records may be in the transaction."""

    REVOKED = "revoked"
    """Ours until the rebalance callback returns; a commit is still accepted."""
    LOST = "lost"
    """Already somebody else's; a commit might be accepted and must not be tried."""
    STORE_CORRUPTED = "store_corrupted"
    """States read from the store cannot be trusted, nor what was computed from them."""
    ASSIGNMENT_REPLACED = "assignment_replaced"
    """Records of an assignment that is over are about to join the transaction."""


class JointAction(Enum):
    """What the worker does; the partition's store is closed afterwards, unless the action says otherwise."""

    CLOSE = "close the store"
    COMMIT_OR_ABORT = "commit within a short deadline, else abort; close the store"
    AWAIT_OUTCOME = "repeat the commit within its deadline, after it the outcome is unknown; close the store"
    ABORT = "abort, go back to the last commit; close the store"
    DROP = "drop what is uncommitted, write nothing; close the store"
    SET_ASIDE = "set the store aside and restore"
    ABORT_AND_SET_ASIDE = "abort, go back to the last commit; set the store aside and restore"
    REFUSE = "refuse the records"


_I, _T, _A = PartitionIncident, TransactionState, JointAction
JOINT_ACTIONS: dict[tuple[PartitionIncident, TransactionState], JointAction] = {
    (_I.REVOKED, _T.IDLE): _A.CLOSE,
    (_I.REVOKED, _T.OPEN): _A.COMMIT_OR_ABORT,
    (_I.REVOKED, _T.COMMITTING): _A.AWAIT_OUTCOME,
    # The next owner's stable read waits for the outcome; the changelog has what this store then lacks.
    (_I.REVOKED, _T.UNKNOWN): _A.DROP,
    (_I.REVOKED, _T.FENCED): _A.DROP,
    (_I.LOST, _T.IDLE): _A.CLOSE,
    (_I.LOST, _T.OPEN): _A.ABORT,
    # It was sent while the partition was ours and is decided for the other partitions; this one's store gets nothing.
    (_I.LOST, _T.COMMITTING): _A.DROP,
    (_I.LOST, _T.UNKNOWN): _A.DROP,
    (_I.LOST, _T.FENCED): _A.DROP,
    # No states are read while a commit is being decided: the cells of COMMITTING and UNKNOWN are empty.
    (_I.STORE_CORRUPTED, _T.IDLE): _A.SET_ASIDE,
    (_I.STORE_CORRUPTED, _T.OPEN): _A.ABORT_AND_SET_ASIDE,
    (_I.ASSIGNMENT_REPLACED, _T.IDLE): _A.REFUSE,
    (_I.ASSIGNMENT_REPLACED, _T.OPEN): _A.REFUSE,
}


def joint_action(incident: PartitionIncident, transaction: TransactionState) -> JointAction:
    """What to do now. Raises IllegalTransition where the two cannot meet."""
    action = JOINT_ACTIONS.get((incident, transaction))
    if action is None:
        raise IllegalTransition(f"partition {incident.value} while the transaction is {transaction.value}")
    return action


AssignmentToken = tuple[int, str]
"""assignment_id of a partition and the member id under which it was assigned."""


def refuse_to_send_offsets(
    group: GroupMetadata,
    assignments_processed: Mapping[int, AssignmentToken],
    assignments_now: Mapping[int, AssignmentToken],
) -> str:
    """Why the input offsets must not join the transaction, "" when they may; the way out is to abort.

    Both mappings are partition → token. `assignments_processed`: under which the records of the transaction were
    processed, also those of partitions that have gone since; `assignments_now`: all of now, with the group's present
    member id. A member that was expelled and rejoined is another one, even before its listener hears of it. The broker
    would accept a current member's commit for a partition that it no longer owns.
    """
    if not group.can_fence:
        return f"the group's metadata cannot fence (generation {group.generation}, member {group.member_id!r})"
    for partition, token in assignments_processed.items():
        if assignments_now.get(partition) != token:
            return f"partition {partition} changed hands since its records were processed"
    return ""
