"""Let a contender drain a loaded topic, and time its outputs from outside."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Consumer, TopicPartition

from worker.adapters.clock import SystemClock
from worker.adapters.http_client import stage_seconds_of_running_worker
from worker.bench.load import PARTITIONS
from worker.bench.setup import admin
from worker.errors import ConfigError

LOOK_SECONDS = 0.01
"""How often the outputs' end offsets are asked for; an error of this size on runs of a second or more."""
JOIN_SECONDS_MAX = 60.0
DRAIN_SECONDS_MAX = 300.0
ANSWER_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Drained:
    """`rate`: records a second between the first output and the commit of the last input offset; with the start
    included where one commit held all of them.

    `ready_seconds`: from start to the first output.
    """

    rate: float
    ready_seconds: float
    cpu_us_per_record: float
    memory_mb: float
    stages: dict[str, float] = field(default_factory=dict)
    """Microseconds a record by stage of the worker's loop; empty for a contender without metrics."""


@dataclass(frozen=True, slots=True)
class Job:
    """`records` are new in `input`; `committed` is the sum of the group's offsets when all are done."""

    bootstrap: str
    input: str
    output: str
    group: str
    records: int
    committed: int

    def outputs(self) -> Callable[[], int]:
        """A function that tells the sum of the output's ends, as read_committed consumers see them."""
        asking = admin(self.bootstrap)

        def ends() -> int:
            return sum(asking.end_offsets(self.output, range(PARTITIONS), read_committed=True).values())

        return ends


def drain(job: Job, command: Sequence[str], http_port: int = 0) -> Drained:
    """Run a contender until its input is committed, then end it. Raises ConfigError when it ends or stalls.

    Where it has an HTTP port its metrics say where its time went.
    """
    clock = SystemClock()
    group = Consumer({"bootstrap.servers": job.bootstrap, "group.id": job.group, "log_level": 0})
    ends = job.outputs()
    before = ends()
    started = clock.monotonic()
    process = subprocess.Popen(list(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        first_seen, first_count, count, done = 0.0, 0, 0, False
        while not done:
            group.poll(LOOK_SECONDS)
            now, count = clock.monotonic(), ends() - before
            if count and not first_seen:
                first_seen, first_count = now, count
            # Ends count the markers of transactions, too; committed offsets count records only.
            done = count >= job.records and committed_offsets(group, job.input) >= job.committed
            if process.poll() is not None:
                detail = process.stderr.read().decode(errors="replace")[-400:] if process.stderr else ""
                raise ConfigError(f"{command[0]} ended after {count} of {job.records} outputs: {detail}")
            if now - started > (DRAIN_SECONDS_MAX if count else JOIN_SECONDS_MAX):
                raise ConfigError(f"{command[0]} stalled after {count} of {job.records} outputs")
        last_seen = clock.monotonic()
        cpu_seconds, memory_mb = usage(process.pid)
        seconds = stage_seconds_of_running_worker("127.0.0.1", http_port) if http_port else {}
    finally:
        end(process)
        group.close()
    if first_count < job.records:
        rate = (job.records - first_count) / max(last_seen - first_seen, LOOK_SECONDS)
    else:
        rate = job.records / (last_seen - started)
    stages = {stage: each / job.records * 1e6 for stage, each in seconds.items()}
    return Drained(rate, first_seen - started, cpu_seconds / job.records * 1e6, memory_mb, stages)


def committed_offsets(group: Consumer, topic: str) -> int:
    """The sum of a group's committed offsets."""
    asked = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    return sum(max(answer.offset, 0) for answer in group.committed(asked, ANSWER_SECONDS_MAX))


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, SIGKILL where that does not help within 20 s."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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
