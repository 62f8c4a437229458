"""Errors, classed by what the caller does next.

A user's mistake is a `UserError`: the command line prints its one line and exits with its code, without a traceback.
Everything else that escapes is a bug or an operating fault and keeps its traceback.
"""

from __future__ import annotations


class WorkerError(Exception):
    """Base of all errors that the worker raises on purpose."""


def printable(text: str, kept: str = "") -> str:
    """With escapes for line breaks, control characters and whatever else a terminal acts on or cannot show."""
    return "".join(each if each.isprintable() or each in kept else repr(each)[1:-1] for each in text)


class UserError(WorkerError):
    """Raised when a person can mend the cause; printed as one line `what is wrong: what to do`.

    `exit_code`: 2 configuration or model, 3 fenced by a newer instance, 4 torn or foreign state,
    5 too many unusable records, 6 no space for the state, 7 state directory in use, 8 another input topic than before,
    9 changelog too short, 10 broker too old, 11 not allowed by the broker, 12 transaction timeout refused.
    """

    exit_code = 2
    _kept = ""
    """Characters that are written as they are although they are not printable."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = printable(message, self._kept)
        self.hint = printable(hint, self._kept)
        super().__init__(f"{self.message}: {self.hint}" if hint else self.message)


class ConfigError(UserError):
    """Raised when a setting, a topic or the environment cannot be used; the worker does not join the group."""


class SettingsRefused(ConfigError):
    """Raised when settings cannot be used, with one line for each."""

    _kept = "\n"


class ModelNotStreamable(UserError):
    """Raised when a model file cannot be read or its layers cannot be stepped; names the layer and the way out."""


class BrokerUnreachable(UserError):
    """Raised when no broker answered within the deadline at start-up."""


class BrokerTooOld(ConfigError):
    """Raised when a broker does not know a request that the worker needs."""

    exit_code = 10


class NotAuthorized(ConfigError):
    """Raised when a broker refuses this user; names the permission that is missing."""

    exit_code = 11


class TransactionTimeoutRefused(ConfigError):
    """Raised when kafka.transaction_timeout_ms is above the broker's transaction.max.timeout.ms."""

    exit_code = 12


class StateDirectoryInUse(UserError):
    """Raised when another process holds the lock of the state directory; two workers never share one."""

    exit_code = 7


class StateFromAnotherModel(UserError):
    """Raised when stored rows carry another model's fingerprint and `model.on_change` is `refuse`."""


class TooManyBadRecords(UserError):
    """Raised when the share of unusable records passes its limit; nothing of the open batch was committed."""

    exit_code = 5


class Fenced(UserError):
    """Raised when a newer instance with the same identity took over; the worker leaves and exits with 3."""

    exit_code = 3


class StateTorn(UserError):
    """Raised when changelog, offsets and state disagree; all files are kept and the worker exits with 4."""

    exit_code = 4


class InputChanged(StateTorn):
    """Raised when the input topic was re-created or has another partition count than what was committed."""

    exit_code = 8


class ChangelogTooShort(StateTorn):
    """Raised when the changelog ends before the committed restore target: the broker lost data."""

    exit_code = 9


class StoreOfAnotherTopic(InputChanged):
    """Raised when a local store holds the state of another partition, topic or partition count."""


class PositionOutOfRange(WorkerError):
    """Raised when a partition's next offset is not in the log (any more); the partition is dead until `start_at`."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        super().__init__(f"{topic}[{partition}]: offset {offset} is not in the log")
        self.topic = topic
        self.partition = partition
        self.offset = offset


class StoreCorrupted(WorkerError):
    """Raised when a partition's local store cannot be trusted; the store is set aside and restored.

    `path` is the directory of the store.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class StoreFull(UserError):
    """Raised when a local store could not be written for lack of space; the changelog has what it lacks.

    The worker exits with 6 and goes on after a restart once there is space.
    """

    exit_code = 6


class RowCorrupted(WorkerError):
    """Raised when a state row's magic, length or CRC is wrong; its store is treated as corrupted."""


class Retriable(WorkerError):
    """Raised when the same call may succeed; it is repeated until its deadline."""


class TransactionAborted(WorkerError):
    """Raised when the open transaction cannot commit; states are rolled back and the input is read again."""


class OutcomeUnknown(WorkerError):
    """Raised when a commit's outcome is not known; resolved by a new producer and the committed offset."""


class ProduceFailed(WorkerError):
    """Raised when a record was not delivered in at-least-once mode; the worker stops before it commits the offsets."""


class IllegalTransition(WorkerError):
    """Raised when an event does not fit the state; a bug, and nothing was changed."""
