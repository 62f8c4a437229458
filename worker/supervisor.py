"""Several members of the group on one machine: starts them, starts them again, ends with them."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from typing import Protocol

from worker.core.restarts import RestartPolicy
from worker.ports import Clock

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
"""How often to see whether a member has ended."""


class Process(Protocol):
    """A started member, as `subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    def terminate(self) -> None:
        """Ask it to finish its batch, commit and leave."""


class Member:
    """One of the processes. `start` makes a new one."""

    def __init__(self, number: int, start: Callable[[], Process]) -> None:
        self.number = number
        self._start = start
        self._policy = RestartPolicy()
        self._process: Process | None = None
        self._due: float | None = 0.0

    @property
    def running(self) -> bool:
        return self._process is not None

    def look(self, now: float, stopping: bool) -> int | None:
        """Start it when that is due. Returns the exit code once it has ended for good."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return None
            self._process = None
            self._due = None if stopping else self._policy.ended(code, now)
            if self._due is None:
                # One that was asked to leave before it had joined the group just dies.
                return 0 if stopping and code == -signal.SIGTERM else code
            log.warning("process %d ended with %d, starts again in %.0f s", self.number, code, self._due - now)
        elif stopping:
            return 0
        if self._due is not None and now >= self._due:
            self._process = self._start()
            self._policy.started(now)
            self._due = None
        return None

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()


class Supervisor:
    """Runs members until `stop`, or until one ends in a way that a person must mend: then all end."""

    def __init__(self, members: Sequence[Member], clock: Clock, pause: Callable[[float], object]) -> None:
        """`pause` sleeps for the given seconds, or less."""
        self._members = list(members)
        self._clock = clock
        self._pause = pause
        self._stopping = False

    def stop(self) -> None:
        """Ask every member to leave. May be called from a signal handler."""
        self._stopping = True

    def run(self) -> int:
        """Blocks until all have ended; the first exit code that is not 0, else 0."""
        left, code, told = list(self._members), 0, False
        while left:
            if self._stopping and not told:
                told = True
                for member in left:
                    member.terminate()
            now = self._clock.monotonic()
            for member in list(left):
                ended = member.look(now, self._stopping)
                if ended is not None:
                    left.remove(member)
                    code = code or ended
                    # One that ended for good would leave its share undone: the whole ends, and whoever runs it is told.
                    self._stopping = True
            self._pause(LOOK_SECONDS)
        return code
