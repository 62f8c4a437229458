"""Seconds from a kill -9 to new outputs: the same static member comes back, or another worker takes over.

A new output is one of a record that was due after the kill. The clock stops when every partition has had one: the
survivor's own partitions say nothing about a takeover.
"""

from __future__ import annotations

import subprocess
import tempfile
import uuid
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from worker.adapters.clock import SystemClock
from worker.adapters.http_client import status_of_running_worker
from worker.bench.drain import end
from worker.bench.latency import START_SECONDS_MAX, Paced, PacedStream, await_all
from worker.bench.load import PARTITIONS
from worker.bench.setup import WorkerSetup, create_topics, free_port
from worker.errors import ConfigError

STREAMS = 1_000
RATE = 500
SETTLE_SECONDS = 3.0
"""Under load before the kill."""
TAKEOVER_SECONDS_MAX = 60.0
SESSION_TIMEOUT_MS = 6_000
SOCKET_TIMEOUT_MS = 10_000


class Takeover:
    """One trial: a steady load, one or two static members."""

    def __init__(self, bootstrap: str, model: Path, features: int, transaction_timeout_ms: int) -> None:
        name = f"takeover-{uuid.uuid4().hex[:8]}"
        self._clock = SystemClock()
        self._setup = WorkerSetup(
            bootstrap,
            name,
            f"{name}-input",
            f"{name}-output",
            model,
            overrides=(
                f"kafka.session_timeout_ms={SESSION_TIMEOUT_MS}",
                f"kafka.transaction_timeout_ms={transaction_timeout_ms}",
                # The client refuses transactions that are shorter than the wait for one answer.
                f"kafka.producer.socket.timeout.ms={min(SOCKET_TIMEOUT_MS, transaction_timeout_ms)}",
            ),
        )
        self._ports: dict[int, int] = {}
        create_topics(bootstrap, [self._setup.input])
        self._setup.create_topics()
        self._paced = Paced(RATE, 0, 0, STREAMS, features)

    def same_member_back(self) -> float:
        """The only worker is killed and started again at once, with its disk and its group instance id."""
        return self._trial(members=1, again=True)

    def other_worker(self) -> float:
        """One of two workers is killed and stays away; the other one waits for the session timeout."""
        return self._trial(members=2, again=False)

    def _trial(self, members: int, again: bool) -> float:
        clock = self._clock
        stream = PacedStream(self._setup.bootstrap, self._setup.input, self._setup.output, self._paced)
        with ExitStack() as stack:
            stack.callback(stream.close)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lstm-worker-bench-")))
            processes = [self._start(folder, number, stack) for number in range(members)]
            self._await_partitions(members)
            stream.one()
            await_all(stream, clock.monotonic() + START_SECONDS_MAX, processes[0])
            stream.begin()
            settled = clock.monotonic() + SETTLE_SECONDS
            while clock.monotonic() < settled:
                stream.turn()
            processes[0].kill()
            killed = clock.monotonic()
            if again:
                self._start(folder, 0, stack)
            first: dict[int, float] = {}
            while len(first) < PARTITIONS:
                stream.turn()
                if clock.monotonic() > killed + TAKEOVER_SECONDS_MAX:
                    raise ConfigError(f"partitions without outputs {TAKEOVER_SECONDS_MAX:g} s after the kill")
                first = first_after(stream, killed)
            return max(first.values()) - killed

    def _start(self, folder: Path, number: int, stack: ExitStack) -> subprocess.Popen[bytes]:
        own = folder / f"member-{number}"
        own.mkdir(exist_ok=True)
        port = free_port()
        self._ports[number] = port
        overrides = (*self._setup.overrides, f"kafka.group_instance_id=member-{number}")
        command = replace(self._setup, port=port, overrides=overrides).command(own)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(end, process)
        return process

    def _await_partitions(self, members: int) -> None:
        """Until every member runs its share."""
        deadline = self._clock.monotonic() + START_SECONDS_MAX
        while True:
            shares = [self._running(port) for port in self._ports.values()]
            if shares == [PARTITIONS // members] * members:
                return
            if self._clock.monotonic() > deadline:
                raise ConfigError(f"partitions were not shared among {members} workers in time")

    @staticmethod
    def _running(port: int) -> int:
        """How many partitions a worker runs; 0 while it starts and does not answer properly."""
        try:
            status = status_of_running_worker("127.0.0.1", port)
        except ConfigError:
            return 0
        partitions = status["partitions"].values() if status is not None else ()
        return sum(each["state"] == "running" for each in partitions)


def first_after(stream: PacedStream, killed: float) -> dict[int, float]:
    """Partition → when the first output of a record due after the kill was seen."""
    first: dict[int, float] = {}
    for (partition, offset), seen in list(stream.seen.items()):
        if stream.due(partition, offset) > killed:
            first[partition] = min(seen, first.get(partition, seen))
    return first
