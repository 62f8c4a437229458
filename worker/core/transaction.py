"""The life of the producer's transactions, as a table.

UNKNOWN is a state: "it is not known whether it committed" has exactly one way out, `RECOVERED`: a new producer with the
same transactional id was initialised, which ends the old transaction, and the committed offsets were read again.
An empty cell is an error and changes nothing.
"""

from __future__ import annotations

from enum import Enum

from worker.errors import IllegalTransition


class TransactionState(Enum):
    """What may be done with the producer."""

    IDLE = "idle"
    OPEN = "open"
    COMMITTING = "committing"
    """The offsets are sent; the commit may have been decided."""
    UNKNOWN = "unknown"
    FENCED = "fenced"
    """Terminal: another instance took over; leave the group and exit."""


class TransactionEvent(Enum):
    """What happened, in the past tense."""

    BEGUN = "begun"
    PRODUCED = "produced"
    OFFSETS_SENT = "offsets_sent"
    COMMIT_SUCCEEDED = "commit_succeeded"
    COMMIT_RETRIABLE = "commit_retriable"
    ABORTED = "aborted"
    OUTCOME_LOST = "outcome_lost"
    RECOVERED = "recovered"
    PRODUCER_REPLACED = "producer_replaced"
    FENCED = "fenced"


_S, _E = TransactionState, TransactionEvent
TRANSITIONS: dict[tuple[TransactionState, TransactionEvent], TransactionState] = {
    (_S.IDLE, _E.BEGUN): _S.OPEN,
    (_S.IDLE, _E.PRODUCER_REPLACED): _S.IDLE,
    (_S.IDLE, _E.OUTCOME_LOST): _S.UNKNOWN,
    (_S.IDLE, _E.FENCED): _S.FENCED,
    (_S.OPEN, _E.PRODUCED): _S.OPEN,
    (_S.OPEN, _E.OFFSETS_SENT): _S.COMMITTING,
    (_S.OPEN, _E.ABORTED): _S.IDLE,
    (_S.OPEN, _E.OUTCOME_LOST): _S.UNKNOWN,
    (_S.OPEN, _E.FENCED): _S.FENCED,
    (_S.COMMITTING, _E.COMMIT_SUCCEEDED): _S.IDLE,
    (_S.COMMITTING, _E.COMMIT_RETRIABLE): _S.COMMITTING,
    (_S.COMMITTING, _E.ABORTED): _S.IDLE,
    (_S.COMMITTING, _E.OUTCOME_LOST): _S.UNKNOWN,
    (_S.COMMITTING, _E.FENCED): _S.FENCED,
    (_S.UNKNOWN, _E.OUTCOME_LOST): _S.UNKNOWN,
    (_S.UNKNOWN, _E.RECOVERED): _S.IDLE,
    (_S.UNKNOWN, _E.FENCED): _S.FENCED,
}


class TransactionMachine:
    """The state of one producer's transactions; only `apply` changes it."""

    def __init__(self) -> None:
        self._state = TransactionState.IDLE

    @property
    def state(self) -> TransactionState:
        return self._state

    def apply(self, event: TransactionEvent) -> TransactionState:
        """Raises IllegalTransition when the table has no such move."""
        after = TRANSITIONS.get((self._state, event))
        if after is None:
            raise IllegalTransition(f"transaction: {event.value} while {self._state.value}")
        self._state = after
        return after
