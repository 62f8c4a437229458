"""Load a topic, let a contender drain it, and time its outputs from outside."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from confluent_kafka import Consumer, Producer

from worker.adapters.clock import SystemClock
from worker.adapters.http_client import stage_seconds_of_running_worker
from worker.adapters.kafka_admin import KafkaAdmin
from worker.adapters.kafka_producer import DEFAULTS as PRODUCER_DEFAULTS
from worker.errors import ConfigError

PARTITIONS = 4
LOOK_SECONDS = 0.01
"""How often the outputs' end offsets are asked for; an error of this size on runs of a second or more."""
JOIN_SECONDS_MAX = 60.0
DRAIN_SECONDS_MAX = 300.0


@dataclass(frozen=True, slots=True)
class Load:
    """`records` samples of `features` numbers for `streams` keys, spread over the partitions by stream."""

    records: int
    streams: int
    features: int
    record_format: str = "binary"
    seed: int = 1

    def samples(self) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """(records, features) float32; record i belongs to stream i modulo `streams`."""
        generator = np.random.default_rng(self.seed)
        return generator.standard_normal((self.records, self.features), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Drained:
    """`rate`: outputs a second between the first and the last seen; `ready_seconds`: from start to the first output."""

    rate: float
    ready_seconds: float
    cpu_us_per_record: float
    memory_mb: float
    stages: dict[str, float] = field(default_factory=dict)
    """Microseconds a record by stage of the worker's loop; empty for a contender without metrics."""


def load_topic(bootstrap: str, topic: str, load: Load) -> None:
    """Produce the load; waits until all is on the broker."""
    producer = Producer(
        {**PRODUCER_DEFAULTS, "bootstrap.servers": bootstrap, "enable.idempotence": True, "log_level": 0}
    )
    rows = load.samples()
    if load.record_format == "binary":
        values = rows.astype("<f4").view(f"V{4 * load.features}").ravel().tolist()
    else:
        values = [b'{"features":[' + b",".join(b"%.6f" % number for number in row) + b"]}" for row in rows.tolist()]
    for i, value in enumerate(values):
        stream = i % load.streams
        while True:
            try:
                producer.produce(topic, value, b"s%06d" % stream, stream % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.05)
    if producer.flush(120):
        raise ConfigError("the load could not be produced within 120 s", "check the broker")


def end_offsets(bootstrap: str, topic: str) -> Callable[[], int]:
    """A function that tells how many records the topic has had, over all partitions."""
    admin = KafkaAdmin({"bootstrap.servers": bootstrap, "log_level": 0})

    def ends() -> int:
        return sum(admin.end_offsets(topic, range(PARTITIONS), read_committed=True).values())

    return ends


def drain(bootstrap: str, command: Sequence[str], output: str, records: int, http_port: int = 0) -> Drained:
    """Run a contender until `records` outputs are there, then end it. Raises ConfigError when it ends or stalls.

    Where it has an HTTP port its metrics say where its time went.
    """
    clock = SystemClock()
    pause = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench-clock", "log_level": 0})
    ends = end_offsets(bootstrap, output)
    before = ends()
    started = clock.monotonic()
    process = subprocess.Popen(list(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        first_seen, first_count, last_seen, count = 0.0, 0, started, 0
        while count < records:
            pause.poll(LOOK_SECONDS)
            now, count = clock.monotonic(), ends() - before
            if count and not first_seen:
                first_seen, first_count = now, count
            last_seen = now
            if process.poll() is not None:
                detail = process.stderr.read().decode(errors="replace")[-400:] if process.stderr else ""
                raise ConfigError(f"{command[0]} ended after {count} of {records} outputs: {detail}")
            if now - started > (DRAIN_SECONDS_MAX if count else JOIN_SECONDS_MAX):
                raise ConfigError(f"{command[0]} stalled after {count} of {records} outputs")
        cpu_seconds, memory_mb = usage(process.pid)
        seconds = stage_seconds_of_running_worker("127.0.0.1", http_port) if http_port else {}
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        pause.close()
    rate = (count - first_count) / max(last_seen - first_seen, 1e-9)
    stages = {stage: each / records * 1e6 for stage, each in seconds.items()}
    return Drained(rate, first_seen - started, cpu_seconds / records * 1e6, memory_mb, stages)


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def usage(pid: int) -> tuple[float, float]:
    """CPU seconds and peak resident MB of a running process, from /proc (zeros elsewhere)."""
    if sys.platform != "linux":
        return 0.0, 0.0
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    with open(f"/proc/{pid}/status") as file:
        peak = next((line for line in file if line.startswith("VmHWM")), "VmHWM: 0 kB")
    return ticks / 100.0, int(peak.split()[1]) / 1024


def python(module: str, *options: str) -> list[str]:
    """The command that runs a module of this package with this interpreter."""
    return [sys.executable, "-m", module, *options]
