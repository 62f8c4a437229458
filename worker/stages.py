"""Where the loop's second goes: every moment belongs to the stage that ends it."""

from __future__ import annotations

from worker.metrics import Metrics
from worker.ports import Clock, Hook

SENT = ("flushed", "changelog_flushed", "committed")
"""Steps of a commit after which nothing is left but to write the stores."""
STORED = "stored"


class Stages:
    """Seconds per stage of the loop; one clock reading per stage and batch."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._last = clock.monotonic()

    def mark(self, stage: str) -> None:
        """The time since the last mark went into this stage."""
        now = self._clock.monotonic()
        self._metrics.stage(stage, now - self._last)
        self._last = now

    def within_commits(self, then: Hook) -> Hook:
        """A hook for a delivery, which tells the stores' part of a commit from the broker's."""

        def hook(step: str) -> None:
            if step in SENT:
                self.mark("commit")
            elif step == STORED:
                self.mark("store")
            then(step)

        return hook
