"""End-to-end latency at a steady rate: from when a record was due to when a read_committed consumer has its output.

From the due time, not from the send: a producer that is held up would otherwise hide its own delay.
"""

from __future__ import annotations

import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from worker.adapters.clock import SystemClock
from worker.bench.commit_times import CommitTimes, read_commit_times
from worker.bench.drain import end, python
from worker.bench.load import PARTITIONS, stream_key, stream_partition
from worker.bench.setup import WorkerSetup, create_topics
from worker.errors import ConfigError

START_SECONDS_MAX = 60.0
LAST_OUTPUTS_SECONDS_MAX = 30.0
POLL_SECONDS = 0.001
OFFSET_IN_OUTPUT = slice(9, 17)
"""Of the binary output: int32 step, float32 probability, uint8 flags, int64 offset of the input record."""


@dataclass(frozen=True, slots=True)
class Paced:
    """A steady load: `rate` records a second for `seconds`, after `warm_seconds` that do not count."""

    rate: int
    seconds: float
    warm_seconds: float
    streams: int
    features: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of every record that counted, and what the worker's commits took."""

    milliseconds: list[float]
    commits: CommitTimes


class PacedStream:
    """Sends records when they are due and notes when each one's output was seen."""

    def __init__(self, bootstrap: str, topic: str, output: str, paced: Paced) -> None:
        self._clock = SystemClock()
        self._paced = paced
        self._topic = topic
        # Without waiting for others every record would be a request of its own, which keeps the broker busy.
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 1, "acks": "all", "log_level": 0})
        self._reader = reader(bootstrap, output)
        self._value = np.zeros(paced.features, "<f4").tobytes()
        self._due: list[list[float]] = [[] for _ in range(PARTITIONS)]
        self._sent = 0
        self._started = 0.0
        self._base = 0
        self.seen: dict[tuple[int, int], float] = {}
        """(Partition, input offset) → when its first output was seen; seconds of the monotonic clock."""

    def due(self, partition: int, offset: int) -> float:
        """When a record was due; seconds of the monotonic clock."""
        return self._due[partition][offset]

    def begin(self) -> None:
        """From now on records are due."""
        self._started = self._clock.monotonic()
        self._base = self._sent

    def turn(self) -> None:
        """Send what is due, take what is there."""
        now = self._clock.monotonic()
        upto = self._base + int((now - self._started) * self._paced.rate)
        for number in range(self._sent, upto):
            self._send(number, self._started + (number - self._base) / self._paced.rate)
        self._producer.poll(0)
        self.take()

    def one(self) -> None:
        """Send one record to every partition now: to see whether a worker runs."""
        for number in range(self._sent, self._sent + PARTITIONS):
            self._send(number, self._clock.monotonic())
        self._producer.flush(LAST_OUTPUTS_SECONDS_MAX)

    def take(self) -> None:
        """Note the outputs that are there."""
        first = self._reader.poll(POLL_SECONDS)
        if first is None:
            return
        messages = [first, *self._reader.consume(10_000, 0)]
        now = self._clock.monotonic()
        for message in messages:
            value, partition = message.value(), message.partition()
            if message.error() is None and value is not None and partition is not None:
                offset = int.from_bytes(value[OFFSET_IN_OUTPUT], "little")
                self.seen.setdefault((partition, offset), now)

    @property
    def complete(self) -> bool:
        """Whether every record's output was seen."""
        return len(self.seen) == self._sent

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()

    def _send(self, number: int, due: float) -> None:
        stream = number % self._paced.streams
        partition = stream_partition(stream)
        # Without retries out of order a partition's n-th record has offset n.
        self._due[partition].append(due)
        self._producer.produce(self._topic, self._value, stream_key(stream), partition)
        self._sent = number + 1


def reader(bootstrap: str, topic: str) -> Consumer:
    """A read_committed consumer of all partitions, without a group."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench-reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 50,
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
    return consumer


def latency(
    bootstrap: str, model: Path, paced: Paced, guarantee: str, interval_ms: int, overrides: Sequence[str] = ()
) -> Latency:
    """Run one worker under a steady load. Raises ConfigError when it ends, or when outputs are missing afterwards."""
    name, clock = f"latency-{uuid.uuid4().hex[:8]}", SystemClock()
    setup = WorkerSetup(
        bootstrap,
        name,
        f"{name}-input",
        f"{name}-output",
        model,
        guarantee=guarantee,
        interval_ms=interval_ms,
        overrides=overrides,
    )
    create_topics(bootstrap, [setup.input])
    setup.create_topics()
    with tempfile.TemporaryDirectory(prefix="lstm-worker-bench-") as folder:
        times = Path(folder) / "commit-times"
        config = setup.write(Path(folder))
        options = [part for override in overrides for part in ("--set", override)]
        command = python("worker.bench.commit_times", "--config", str(config), "--times", str(times), *options)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stream = PacedStream(bootstrap, setup.input, setup.output, paced)
        try:
            stream.one()
            await_all(stream, clock.monotonic() + START_SECONDS_MAX, process)
            stream.begin()
            began = clock.monotonic()
            while clock.monotonic() < began + paced.warm_seconds + paced.seconds:
                stream.turn()
            await_all(stream, clock.monotonic() + LAST_OUTPUTS_SECONDS_MAX, process)
        finally:
            end(process)
            stream.close()
        counts_from = began + paced.warm_seconds
        milliseconds = [
            (seen - stream.due(*record)) * 1000
            for record, seen in stream.seen.items()
            if stream.due(*record) >= counts_from
        ]
        return Latency(milliseconds, read_commit_times(times))


def await_all(stream: PacedStream, deadline: float, process: subprocess.Popen[bytes]) -> None:
    """Until every output was seen. Raises ConfigError."""
    clock = SystemClock()
    while not stream.complete:
        stream.take()
        if process.poll() is not None or clock.monotonic() > deadline:
            raise ConfigError(f"outputs are missing: {len(stream.seen)} were seen", "run `lstm-worker run` to see why")
