"""`lstm-worker run` as its users start it: a process with a TOML file, on the embedded broker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.model_files import FOLDER
from tests.reading import read_to_the_end
from worker.adapters.clock import SystemClock
from worker.adapters.embedded_broker import PARTITIONS_PER_TOPIC
from worker.adapters.http_client import status_of_running_worker
from worker.adapters.kafka_admin import KafkaAdmin, TopicPlan
from worker.adapters.kafka_follower import FollowedRecord, Follower
from worker.adapters.kafka_producer import KafkaProducer
from worker.core.types import Headers
from worker.errors import ConfigError

SECONDS_MAX = 90.0
"""Generous: a machine may be busy with other tests."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Job:
    """Topics of its own, a configuration, and the worker processes that were started with it."""

    bootstrap: str
    folder: Path
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    real: bool = False
    """On a real broker, which creates topics when it is told to."""

    def __post_init__(self) -> None:
        self.clock = SystemClock()
        self.name = f"job-{uuid.uuid4().hex[:8]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.input, self.output, self.dead = (f"{self.name}-{suffix}" for suffix in ("in", "out", "dead"))
        admin = KafkaAdmin({"bootstrap.servers": self.bootstrap, "log_level": 0})
        if self.real:
            large = {"max.message.bytes": "20000000", "retention.ms": "-1"}
            names = (self.input, self.output, self.dead)
            admin.ensure_topics([TopicPlan(name, PARTITIONS_PER_TOPIC, properties=large) for name in names])
        else:
            admin.touch_topics([self.input, self.output, self.dead])
        self.process: subprocess.Popen[bytes] | None = None
        self.outputs: list[FollowedRecord] = []
        self._follower: Follower | None = None

    def settings(self) -> dict[str, dict[str, Any]]:
        defaults: dict[str, dict[str, Any]] = {
            # The embedded broker forgets a member that left only after its session.
            "kafka": {"bootstrap_servers": self.bootstrap, "group_id": self.name, "session_timeout_ms": 6000},
            "topics": {"input": self.input, "output": self.output, "dead_letter": self.dead},
            "model": {"path": str(FOLDER / "prefix.keras")},
            "state": {"directory": str(self.folder / "state"), "changelog": False},
            "worker": {"guarantee": "at_least_once", "commit_interval_ms": 20},
            "http": {"port": self.port},
        }
        return {
            section: {**defaults.get(section, {}), **self.sections.get(section, {})}
            for section in {**defaults, **self.sections}
        }

    def config(self) -> Path:
        lines = []
        for section, values in self.settings().items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        path = self.folder / "worker.toml"
        path.write_text("\n".join(lines))
        return path

    def start(self, *flags: str) -> None:
        """Start a worker; does not wait."""
        command = [sys.executable, "-m", "worker", "run", "--config", str(self.config()), *flags]
        with (self.folder / "stderr.log").open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, "LSTM_WORKER__LOG__LEVEL": "error"},
            )

    def wait(self) -> int:
        """The exit code of a worker that ends by itself."""
        assert self.process is not None
        return self.process.wait(SECONDS_MAX)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(SECONDS_MAX)

    def errors(self) -> str:
        """Standard error, without the client library's own lines."""
        lines = (self.folder / "stderr.log").read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if not line.startswith("%") and '"logger":"librdkafka' not in line)

    def send(
        self,
        values: list[bytes | None],
        *,
        keys: list[bytes | None] | None = None,
        partition: int = 0,
        times: list[int] | None = None,
        headers: list[Headers | None] | None = None,
    ) -> None:
        """Produce records to one partition, stream `s` at time 1, 2, 3 … unless said otherwise."""
        producer = KafkaProducer({"bootstrap.servers": self.bootstrap, "message.max.bytes": 20_000_000, "log_level": 0})
        count = len(values)
        producer.produce_many(
            self.input,
            [partition] * count,
            keys or [b"s"] * count,
            values,
            times or list(range(1, count + 1)),
            headers,
        )
        producer.flush()
        producer.close()

    def status(self) -> dict[str, Any] | None:
        """None while the worker does not answer, which includes that it is starting or ending right now."""
        try:
            return status_of_running_worker("127.0.0.1", self.port)
        except ConfigError:
            return None

    def wait_until(self, true: Any) -> None:
        """Ask again until it holds; fails with the worker's errors when it ends or the time is over."""
        deadline = self.clock.monotonic() + SECONDS_MAX
        reader = Follower(self.bootstrap, self.dead, [0], properties={"log_level": 0})
        try:
            while not true():
                # Waiting for records is how this loop lets time pass.
                reader.poll(0.05)
                assert self.process is not None
                assert self.process.poll() is None, self.errors()
                assert self.clock.monotonic() < deadline, f"waited too long; {self.status()}"
        finally:
            reader.close()

    def wait_processed(self, records: int) -> None:
        """Until the worker has processed and committed so many records."""

        def processed() -> bool:
            status = self.status()
            if status is None or status["records"] < records:
                return False
            partitions = status["partitions"].values()
            return all(each["next_offset"] == each["committed_offset"] for each in partitions)

        self.wait_until(processed)

    def read(self, topic: str | None = None) -> list[FollowedRecord]:
        """All records of a topic, the output by default."""
        reader = Follower(
            self.bootstrap, topic or self.output, range(PARTITIONS_PER_TOPIC), properties={"log_level": 0}
        )
        return read_to_the_end(reader, PARTITIONS_PER_TOPIC)

    def published(self) -> list[dict[str, Any]]:
        return [json.loads(record.value or b"null") for record in self.read()]


def sample(*numbers: float, **controls: Any) -> bytes:
    return json.dumps({"features": list(numbers), **controls}).encode()
