"""A trial of the exactly-once guarantee: input, workers that are hurt, and the oracles that look at what is left.

The oracles, after the last fault: every output that the input implies is in the read_committed output exactly once,
with the right step and a probability within 1e-6; a reader during the faults saw the same as one afterwards; every
store equals the compacted changelog equals the open sequences; the committed offsets are the input's end; nothing is
open (last stable offset = high watermark).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from tests.model_files import FOLDER, PREFIX_FEATURES, logit_and_probability
from tests.oracle import Oracle
from tests.reading import read_to_the_end
from tests.recordings import Comparison, Sender, compare, samples
from tests.stores import open_rows
from worker.adapters.clock import SystemClock
from worker.adapters.kafka_admin import KafkaAdmin, TopicPlan
from worker.adapters.kafka_follower import FollowedRecord, Follower
from worker.core.restore_by_progress import PROGRESS_KEY
from worker.core.state_row import decode_row

PARTITIONS = 4
END_SECONDS_MAX = 40
"""From SIGTERM to the end of a worker on a busy machine."""
OPEN_STEPS = {
    "begun",
    "produced",
    "polled",
    "stepped",
    "dead_letters_sent",
    "changelog_sent",
    "flushed",
    "offsets_sent",
}
"""Steps after which a kill leaves a transaction open; `polled` and `stepped` only when one was begun before."""

CONFIG = """
[kafka]
bootstrap_servers = "{bootstrap}"
group_id = "{name}"
session_timeout_ms = 6000
transaction_timeout_ms = 10000
{consumer}
[topics]
input = "{name}-in"
output = "{name}-out"
dead_letter = "{name}-dead"
changelog = "{name}-changelog"
[model]
path = "{model}"
engine = "numpy"
[worker]
commit_interval_ms = {interval_ms}
batch_records = {batch_records}
[http]
port = 0
"""


STARTED: list[subprocess.Popen[bytes]] = []
"""Every supervisor of this test run; each leads a process group."""


def kill_what_is_left() -> None:
    """End workers that a failed test left behind; they would slow down all tests after it."""
    for process in STARTED:
        # The group outlives its leader while a worker is in it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    STARTED.clear()


@dataclass
class Worker:
    """One worker process (a supervisor that forks lives); `name` is its group.instance.id and its state directory."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def last_step(self) -> str:
        """The step that its newest life reached last."""
        file = self.folder / f"{self.name}.step"
        return file.read_text().strip() if file.exists() else ""

    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()


@dataclass
class Trial:
    """`seed` decides the input; nothing is produced yet and no worker runs."""

    bootstrap: str
    folder: Path
    seed: int
    records: int
    interval_ms: int = 5
    batch_records: int = 9
    replication: int = 1
    streams: int = 12
    overrides: tuple[str, ...] = ()
    workers: dict[str, Worker] = field(default_factory=dict)
    during: list[FollowedRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = SystemClock()
        self.name = f"trial-{uuid.uuid4().hex[:8]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        admin = KafkaAdmin({"bootstrap.servers": self.bootstrap})
        plans = [
            # The input's event times are fixed and old: a broker's time retention would delete it during the test.
            TopicPlan(f"{self.name}-{suffix}", PARTITIONS, policy, self.replication, {"retention.ms": "-1"})
            for suffix, policy in (("in", "delete"), ("out", "delete"), ("dead", "delete"), ("changelog", "compact"))
        ]
        admin.ensure_topics(plans)
        self.admin = admin
        self.config = self.folder / "worker.toml"
        consumer_protocol = "kafka.group_protocol=consumer" in self.overrides
        self.config.write_text(
            CONFIG.format(
                bootstrap=self.bootstrap,
                name=self.name,
                model=FOLDER / "prefix.keras",
                interval_ms=self.interval_ms,
                batch_records=self.batch_records,
                # Cooperative rebalances take two heartbeats; the consumer protocol's are the broker's.
                consumer="" if consumer_protocol else '[kafka.consumer]\n"heartbeat.interval.ms" = 500',
            )
        )
        self.given = samples(self.seed, self.records, features=PREFIX_FEATURES, streams=self.streams)
        self.oracle = Oracle().feed(self.given)
        self.reader = self.output_reader()
        self.produced = 0
        self.sender = Sender(self.bootstrap, f"{self.name}-in")

    def produce(self, count: int | None = None) -> None:
        """The next `count` records of the input, or all that are left."""
        upto = len(self.given) if count is None else min(len(self.given), self.produced + count)
        if upto > self.produced:
            self.sender.send(self.given[self.produced : upto])
            self.produced = upto

    def output_reader(self) -> Follower:
        return Follower(self.bootstrap, f"{self.name}-out", range(PARTITIONS), properties={"log_level": 0})

    def start(self, name: str, *options: str, static: bool = True) -> Worker:
        """Start a worker, a static member or a dynamic one; options as in worker_process.py."""
        command = [sys.executable, "-m", "tests.faults.worker_process", "--config", str(self.config)]
        overrides = [f"state.directory={self.folder / ('state-' + name)}", *self.overrides]
        if static:
            overrides.append(f"kafka.group_instance_id={name}")
        for override in overrides:
            command += ["--set", override]
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(
            [*command, "--last-step", str(self.folder / f"{name}.step"), *options],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        STARTED.append(process)
        self.workers[name] = Worker(name, self.folder, process)
        return self.workers[name]

    def kill(self, name: str) -> str:
        """kill -9 the worker and its supervisor; returns the step that was hit."""
        worker = self.workers[name]
        os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        return worker.last_step

    def send(self, name: str, number: signal.Signals) -> None:
        """A signal to the worker and its supervisor."""
        os.killpg(self.workers[name].process.pid, number)

    def is_stopped(self, name: str) -> bool:
        """Whether a process of the worker has been stopped by SIGSTOP."""
        leader = self.workers[name].process.pid
        for status in Path("/proc").glob("[0-9]*/stat"):
            with suppress(FileNotFoundError, ProcessLookupError):
                state, _, group = status.read_text().rpartition(")")[2].split()[:3]
                if int(group) == leader and state == "T":
                    return True
        return False

    def read(self, timeout: float = 0.1) -> int:
        """Take what a read_committed reader sees meanwhile; returns how many it has seen so far."""
        self.during.extend(self.reader.poll(timeout))
        return len(self.during)

    def seen(self) -> set[tuple[int, int]]:
        """Partition and input offset of every output that the reader has seen."""
        return {
            (record.partition, int(record.value.split(b'"offset":')[1].split(b"}")[0]))
            for record in self.during
            if record.value
        }

    def drain(self, seconds: float, alive: Any = None) -> None:
        """Read until every expected output was seen or the time is over."""
        deadline = self.clock.monotonic() + seconds
        while self.read() < len(self.oracle.outputs) and self.clock.monotonic() < deadline:
            if alive is not None and not alive():
                break

    def wait_and_trickle(self, seconds: float, records_per_second: float) -> None:
        """Let time pass as a live stream does: a few records at a time, and a reader that follows."""
        began, before = self.clock.monotonic(), self.produced
        while (elapsed := self.clock.monotonic() - began) < seconds:
            self.produce(int(elapsed * records_per_second) - (self.produced - before))
            self.read(0.02)

    def one_in_a_transaction(self, records_per_second: float, seconds: float) -> str:
        """The name of a worker that has a transaction open now; of any worker when none had one in time."""
        deadline = self.clock.monotonic() + seconds
        while self.clock.monotonic() < deadline:
            self.wait_and_trickle(0.05, records_per_second)
            for name, worker in self.workers.items():
                if worker.last_step in OPEN_STEPS:
                    return name
        return next(iter(self.workers))

    def end(self, name: str) -> int:
        """SIGTERM one worker and wait; its exit code."""
        self.workers[name].process.terminate()
        return self.ended(name)

    def ended(self, name: str) -> int:
        """Wait for the end of a worker that was asked to leave; its exit code. Fails with where its threads are."""
        worker = self.workers[name]
        try:
            return worker.process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.send(name, signal.SIGUSR1)
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(1)
            raise AssertionError(f"{name} did not end within {END_SECONDS_MAX} s\n{worker.log()[-6000:]}") from None

    def revive(self) -> int:
        """Start again every worker that ended by itself, as an orchestrator does; returns how many."""
        ended = [name for name, worker in self.workers.items() if worker.process.poll() is not None]
        for name in ended:
            self.start(name)
        return len(ended)

    def stop(self) -> dict[str, int]:
        """SIGTERM to every worker; exit codes by name."""
        for worker in self.workers.values():
            worker.process.terminate()
        return {name: self.ended(name) for name in self.workers}

    # ---- the oracles

    def check(self, *, repeats_allowed: bool = False) -> Comparison:
        """All oracles; call after `stop`."""
        assert self.produced == len(self.given), "the trial has not produced all of its input"
        afterwards = self.all_outputs()
        comparison = compare(afterwards, self.oracle, logit_and_probability, repeats_allowed=repeats_allowed)
        deadline = self.clock.monotonic() + 60
        while self.read() < len(afterwards) and self.clock.monotonic() < deadline:
            pass
        seen = [(record.partition, record.offset, record.value) for record in self.during]
        assert sorted(seen) == [(record.partition, record.offset, record.value) for record in sorted_(afterwards)], (
            "a reader during the faults saw something else than one afterwards"
        )
        self.check_states()
        self.check_offsets()
        self.reader.close()
        return comparison

    def all_outputs(self) -> list[FollowedRecord]:
        reader = self.output_reader()
        ends = self.admin.end_offsets(f"{self.name}-out", range(PARTITIONS), read_committed=True)
        found = read_to_the_end(reader, PARTITIONS)
        assert all(record.offset < ends[record.partition] for record in found)
        return found

    def changelog_rows(self) -> dict[tuple[int, bytes], bytes]:
        """(Partition, stream key) → newest row; streams with a tombstone are left out."""
        changelog: dict[tuple[int, bytes], bytes | None] = {}
        reader = Follower(self.bootstrap, f"{self.name}-changelog", range(PARTITIONS), properties={"log_level": 0})
        for record in read_to_the_end(reader, PARTITIONS):
            # Progress records are nobody's state.
            if record.key != PROGRESS_KEY:
                changelog[(record.partition, record.key or b"")] = record.value
        return {stream: row for stream, row in changelog.items() if row is not None}

    def check_states(self) -> None:
        """Compacted changelog = the oracle's open sequences = the newest stores."""
        rows = {stream: decode_row(row) for stream, row in self.changelog_rows().items()}
        expected = {stream: len(sequence.samples) for stream, sequence in self.oracle.open.items()}
        assert {stream: row.header["step"] for stream, row in rows.items()} == expected
        stored: dict[tuple[int, bytes], Any] = {}
        for name in self.workers:
            directory = self.folder / f"state-{name}"
            for stream, row in open_rows(directory, f"{self.name}-in", PARTITIONS).items():
                newest = stored.get(stream)
                if newest is None or row.header["last_offset"] > newest.header["last_offset"]:
                    stored[stream] = row
        for stream, row in rows.items():
            # As text, because NaN is not equal to itself.
            assert repr(stored[stream].header) == repr(row.header), f"the store of {stream} differs from the changelog"
            assert (stored[stream].state == row.state).all()

    def check_offsets(self) -> None:
        """Committed offsets = input end; no transaction open anywhere."""
        ends = self.admin.end_offsets(f"{self.name}-in", range(PARTITIONS), read_committed=False)
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.name, "log_level": 0})
        for partition in range(PARTITIONS):
            (answer,) = consumer.committed([TopicPartition(f"{self.name}-in", partition)], 20)
            assert answer.offset == ends[partition], f"partition {partition}: {answer.offset} of {ends[partition]}"
        consumer.close()
        for suffix in ("out", "dead", "changelog"):
            topic = f"{self.name}-{suffix}"
            stable = self.admin.end_offsets(topic, range(PARTITIONS), read_committed=True)
            high = self.admin.end_offsets(topic, range(PARTITIONS), read_committed=False)
            assert stable == high, f"{topic}: a transaction is open"


def sorted_(records: list[FollowedRecord]) -> list[FollowedRecord]:
    return sorted(records, key=lambda record: (record.partition, record.offset))
