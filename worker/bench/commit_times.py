"""A worker whose commits are timed by its own hook: `python -m worker.bench.commit_times --config … --times FILE`.

The hook is called between the steps of the commit. A commit begins with the step before which everything was stepped
and its rows were packed, and ends when states are stored and offsets are committed. Buckets of a histogram would be
too coarse for percentiles.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import sys
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from worker.adapters.clock import SystemClock
from worker.assembly import assembled
from worker.cli.run import GC_ALLOCATIONS
from worker.config import load_settings
from worker.logs import configure_logging

FIRST = "dead_letters_sent"
LAST = ("done", "offsets_committed")
"""Of exactly once and of at least once."""


@dataclass(frozen=True, slots=True)
class CommitTimes:
    """Milliseconds of each commit from the first step to the last, and of the way to each step in between."""

    total_ms: list[float]
    steps_ms: dict[str, list[float]]


class CommitTimer:
    """The hook: notes when each step was reached."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._steps: list[tuple[str, float]] = []
        self._commits: list[list[tuple[str, float]]] = []

    def __call__(self, step: str) -> None:
        if step == FIRST:
            self._steps = []
        self._steps.append((step, self._clock.monotonic()))
        if step in LAST:
            self._commits.append(self._steps)
            self._steps = []

    def times(self) -> CommitTimes:
        """Of all commits that came to their end."""
        steps_ms: dict[str, list[float]] = defaultdict(list)
        for commit in self._commits:
            by_step: dict[str, float] = defaultdict(float)
            for (_, before), (step, reached) in pairwise(commit):
                by_step[step] += (reached - before) * 1000
            for step, each in by_step.items():
                steps_ms[step].append(each)
        return CommitTimes([(commit[-1][1] - commit[0][1]) * 1000 for commit in self._commits], dict(steps_ms))


def read_commit_times(file: Path) -> CommitTimes:
    """What a worker has left behind; empty when it left nothing."""
    if not file.exists():
        return CommitTimes([], {})
    found = json.loads(file.read_text())
    return CommitTimes(found["total_ms"], found["steps_ms"])


def main() -> None:
    """Serve until SIGTERM, then write the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--times", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    configure_logging("text", "warning")
    timer = CommitTimer(SystemClock())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with assembled(load_settings(given.config, given.set), timer) as worker:
        # As `lstm-worker run` has it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_ALLOCATIONS, 20, 100)
        signal.signal(signal.SIGTERM, lambda *_: worker.stop())
        worker.run()
    times = timer.times()
    given.times.write_text(json.dumps({"total_ms": times.total_ms, "steps_ms": times.steps_ms}))


if __name__ == "__main__":
    main()
