"""When to commit: a fixed time after the first uncommitted record."""

from __future__ import annotations


class CommitPolicy:
    """Times are seconds of a monotonic clock, given by the caller."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._due: float | None = None

    def processed(self, now: float, records: int) -> None:
        """Records were processed that are not committed yet."""
        if self._due is None and records:
            self._due = now + self._interval_seconds

    def should_commit(self, now: float) -> bool:
        """Whether the oldest uncommitted record has waited for the interval."""
        return self._due is not None and now >= self._due

    def did_commit(self, now: float) -> None:
        """Everything processed so far is committed."""
        del now
        self._due = None

    def seconds_until_due(self, now: float, at_most: float) -> float:
        """How long the loop may wait for records."""
        return at_most if self._due is None else min(at_most, max(0.0, self._due - now))
