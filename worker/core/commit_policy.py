"""When to commit: a fixed time after the first uncommitted record, or earlier when too much is uncommitted."""

from __future__ import annotations


class CommitPolicy:
    """Times are seconds of a monotonic clock, given by the caller.

    `records_max`, `uncommitted_bytes_max`: reaching one of them makes a commit due at once; None: no such limit.
    """

    def __init__(
        self,
        interval_seconds: float,
        *,
        records_max: int | None = None,
        uncommitted_bytes_max: int | None = None,
    ) -> None:
        self._interval_seconds = interval_seconds
        self._records_max = records_max
        self._uncommitted_bytes_max = uncommitted_bytes_max
        self._due: float | None = None
        self._records = 0
        self._uncommitted_bytes = 0

    def processed(self, now: float, records: int, uncommitted_bytes: int = 0) -> None:
        """`records` more are not committed yet; together they hold `uncommitted_bytes`, which is no increment."""
        if self._due is None and records:
            self._due = now + self._interval_seconds
        self._records += records
        self._uncommitted_bytes = uncommitted_bytes

    def owed(self, now: float) -> None:
        """A commit is due within the interval although no record was processed."""
        if self._due is None:
            self._due = now + self._interval_seconds

    def should_commit(self, now: float, *, rebalance_pending: bool = False) -> bool:
        """Whether the oldest uncommitted record has waited for the interval, or a limit is reached.

        With a rebalance pending anything uncommitted is due: a commit before the callback makes the callback short.
        """
        if self._due is None:
            return False
        return (
            now >= self._due
            or rebalance_pending
            or (self._records_max is not None and self._records >= self._records_max)
            or (self._uncommitted_bytes_max is not None and self._uncommitted_bytes >= self._uncommitted_bytes_max)
        )

    def did_commit(self, now: float) -> None:
        """Everything processed so far is committed, or was rolled back."""
        del now
        self._due = None
        self._records = 0
        self._uncommitted_bytes = 0

    def seconds_until_due(self, now: float, at_most: float) -> float:
        """How long the loop may wait for records."""
        return at_most if self._due is None else min(at_most, max(0.0, self._due - now))
