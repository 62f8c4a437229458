"""How long `lstm-worker run` takes to be ready, and how much memory it has then."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from confluent_kafka import Consumer

from worker.adapters.clock import SystemClock
from worker.adapters.kafka_admin import KafkaAdmin
from worker.bench.drain import free_port, usage
from worker.bench.scenario import CONFIG
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
    KafkaAdmin({"bootstrap.servers": bootstrap, "log_level": 0}).touch_topics(
        ["startup", "startup-output", "bench-dead-letter"]
    )
    pause = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench-clock", "log_level": 0})
    with tempfile.TemporaryDirectory(prefix="lstm-worker-startup-") as folder:
        config = Path(folder) / "worker.toml"
        text = CONFIG.format(
            bootstrap=bootstrap,
            group=f"startup-{port}",
            input="startup",
            output="startup-output",
            model=model,
            record_format="json",
            folder=folder,
            interval_ms=100,
            port=port,
        )
        config.write_text(text)
        started = clock.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "run", "--config", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
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
