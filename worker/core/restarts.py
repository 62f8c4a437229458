"""When a supervised process that ended is started again."""

from __future__ import annotations

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 30.0
"""Doubled each time up to here: a broker that is away for an hour is not asked thousands of times."""
HEALTHY_SECONDS = 60.0
"""A process that ran for so long begins with the shortest pause again."""

HOPELESS = frozenset(range(2, 13))
"""Exit codes of mistakes that a person must mend: starting again would end the same way."""


class RestartPolicy:
    """Of one process; times are seconds of a monotonic clock, given by the caller."""

    def __init__(self) -> None:
        self._pause = FIRST_SECONDS
        self._started = 0.0

    def started(self, now: float) -> None:
        """The process runs."""
        self._started = now

    def ended(self, exit_code: int, now: float) -> float | None:
        """When to start it again; None where that is hopeless. Negative codes are signals."""
        if exit_code in HOPELESS:
            return None
        if now - self._started >= HEALTHY_SECONDS:
            self._pause = FIRST_SECONDS
        due = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_SECONDS)
        return due
