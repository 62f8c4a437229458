"""How long `lstm-worker run` takes to be ready, and how much memory it has then."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from confluent_kafka import Consumer

from worker.adapters.clock import SystemClock
from worker.bench.drain import usage
from worker.bench.setup import DEAD_LETTERS, WorkerSetup, admin, free_port
from worker.errors import ConfigError

READY_SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Startup:
    """`ready_seconds`: from the start of the process until it has a verified model and subscribed (/startupz)."""

    ready_seconds: float
    memory_mb: float


def startup(bootstrap: str, model: Path) -> Startup:
    """Start a worker without load, wait for /startupz, look at its memory, stop it."""
    clock = SystemClock()
    port = free_port()
    admin(bootstrap).touch_topics(["startup", "startup-output", DEAD_LETTERS])
    pause = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench-clock", "log_level": 0})
    with tempfile.TemporaryDirectory(prefix="lstm-worker-startup-") as folder:
        setup = WorkerSetup(
            bootstrap,
            f"startup-{port}",
            "startup",
            "startup-output",
            model,
            record_format="json",
            guarantee="at_least_once",
            port=port,
        )
        started = clock.monotonic()
        process = subprocess.Popen(setup.command(Path(folder)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not _started_up(port):
                pause.poll(0.01)
                if process.poll() is not None or clock.monotonic() - started > READY_SECONDS_MAX:
                    raise ConfigError("the worker did not start", "run `lstm-worker run` to see why")
            ready_seconds = clock.monotonic() - started
            memory_mb = usage(process.pid)[1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            pause.close()
    return Startup(ready_seconds, memory_mb)


def _started_up(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/startupz")
        return connection.getresponse().status == 200
    except ConnectionRefusedError:
        return False
    finally:
        connection.close()
