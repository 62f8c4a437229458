"""The life of one assignment of one input partition, as a table.

An empty cell is an error and changes nothing. REVOKED is terminal: a re-assignment makes a new machine with a new
`assignment_id`, so work that began under the old one can be told from work under the new.
"""

from __future__ import annotations

from enum import Enum

from worker.errors import IllegalTransition


class PartitionState(Enum):
    """What may happen to the partition's records."""

    ASSIGNED = "assigned"
    """Paused, nothing open."""
    RESTORING = "restoring"
    """Paused, the store is open and reads the changelog."""
    RUNNING = "running"
    REVOKED = "revoked"


class PartitionEvent(Enum):
    """What happened, in the past tense."""

    STORE_OPENED = "store_opened"
    RESTORE_PROGRESSED = "restore_progressed"
    RESTORE_COMPLETED = "restore_completed"
    BATCH_ADMITTED = "batch_admitted"
    POSITION_RESET = "position_reset"
    STORE_CORRUPTED = "store_corrupted"
    REVOKED = "revoked"


_S, _E = PartitionState, PartitionEvent
TRANSITIONS: dict[tuple[PartitionState, PartitionEvent], PartitionState] = {
    (_S.ASSIGNED, _E.STORE_OPENED): _S.RESTORING,
    (_S.ASSIGNED, _E.STORE_CORRUPTED): _S.ASSIGNED,
    (_S.ASSIGNED, _E.REVOKED): _S.REVOKED,
    (_S.RESTORING, _E.RESTORE_PROGRESSED): _S.RESTORING,
    (_S.RESTORING, _E.RESTORE_COMPLETED): _S.RUNNING,
    (_S.RESTORING, _E.STORE_CORRUPTED): _S.ASSIGNED,
    (_S.RESTORING, _E.REVOKED): _S.REVOKED,
    (_S.RUNNING, _E.BATCH_ADMITTED): _S.RUNNING,
    (_S.RUNNING, _E.POSITION_RESET): _S.RUNNING,
    (_S.RUNNING, _E.STORE_CORRUPTED): _S.ASSIGNED,
    (_S.RUNNING, _E.REVOKED): _S.REVOKED,
}


class PartitionMachine:
    """The state of one assignment; only `apply` changes it."""

    def __init__(self, assignment_id: int) -> None:
        self.assignment_id = assignment_id
        self._state = PartitionState.ASSIGNED

    @property
    def state(self) -> PartitionState:
        return self._state

    def apply(self, event: PartitionEvent) -> PartitionState:
        """Raises IllegalTransition when the table has no such move."""
        after = TRANSITIONS.get((self._state, event))
        if after is None:
            raise IllegalTransition(f"partition: {event.value} while {self._state.value}")
        self._state = after
        return after
