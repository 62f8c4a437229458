"""How a worker ends when it is asked to: within `worker.shutdown_timeout_ms`, or with where it hangs."""

from __future__ import annotations

import signal
import subprocess
import sys

SERVE = """
import contextlib, sys, threading
import worker.assembly
from worker.cli.run import serve
from worker.config import load_settings

class Worker:
    def __init__(self):
        self.stopped = threading.Event()
    def stop(self):
        {on_stop}
    def run(self):
        print("running", flush=True)
        while not self.stopped.wait(0.05):
            pass

@contextlib.contextmanager
def assembled(settings):
    {at_start}
    yield Worker()

worker.assembly.assembled = assembled
serve(load_settings(None, ["worker.shutdown_timeout_ms=1000"]))
print("ended", flush=True)
"""


def asked_to_leave(on_stop: str, at_start: str = "pass") -> tuple[int, str, str]:
    """Exit code, output and errors of a process that gets SIGTERM once it has printed a line."""
    script = SERVE.format(on_stop=on_stop, at_start=at_start)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as it:
        assert it.stdout is not None
        it.stdout.readline()
        it.send_signal(signal.SIGTERM)
        output, errors = it.communicate(timeout=60)
    return it.returncode, output, errors


def test_a_worker_that_stops_ends_with_0() -> None:
    code, output, _ = asked_to_leave("self.stopped.set()")
    assert (code, output) == (0, "ended\n")


def test_a_worker_that_hangs_says_where_and_ends_with_1() -> None:
    code, output, errors = asked_to_leave("pass")
    assert (code, output) == (1, "")
    assert "in run" in errors


def test_a_worker_that_has_not_joined_the_group_just_ends() -> None:
    code, output, errors = asked_to_leave("pass", 'print("starting", flush=True); threading.Event().wait()')
    assert (code, output, errors) == (-signal.SIGTERM, "", "")
