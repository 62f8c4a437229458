"""Blocking code that runs a step at a time: what it calls decides where it may be interrupted or killed."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.sim.client import Result, Steps

STUCK_SECONDS = 120
"""Between two pauses lie microseconds of work."""


class Killed(BaseException):
    """Raised inside of the code where the process is killed, and again by everything that it calls afterwards."""


class Stepwise:
    """Runs a function in a thread that moves only while somebody waits for it, so that runs can be repeated."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._resume = threading.Lock()
        self._paused = threading.Lock()
        self._resume.acquire()
        self._paused.acquire()
        self._killed = False
        self._done = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self) -> bool:
        """Go on to the next `pause`; False when the function has returned. Raises what it raised."""
        if not self._done:
            self._go_on()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return not self._done

    def pause(self) -> None:
        """Called by the function: anything else may happen now."""
        if not self._killed:
            self._paused.release()
            self._resume.acquire()
        if self._killed:
            raise Killed

    def wait(self, steps: Steps[Result]) -> Result:
        """Called by the function: a simulated request, with pauses wherever it may be interrupted."""
        while True:
            try:
                next(steps)
            except StopIteration as finished:
                result: Result = finished.value
                return result
            self.pause()

    def kill(self) -> None:
        """End the function where it is; whatever it still calls raises."""
        self._killed = True
        if not self._done:
            self._go_on()
        self._thread.join()

    def _go_on(self) -> None:
        self._resume.release()
        if not self._paused.acquire(timeout=STUCK_SECONDS):
            raise RuntimeError(f"no pause within {STUCK_SECONDS} s")

    def _run(self) -> None:
        self._resume.acquire()
        try:
            if not self._killed:
                self._function()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001  handed to whoever steps
            self._error = error
        self._done = True
        self._paused.release()
