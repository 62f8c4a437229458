"""What a measured worker is given: its topics, its configuration file and its command."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker.adapters.clock import SystemClock
from worker.adapters.kafka_admin import KafkaAdmin, TopicPlan
from worker.bench.load import PARTITIONS
from worker.errors import Retriable
from worker.topics import CHANGELOG_PROPERTIES

CONFIG = """
[kafka]
bootstrap_servers = "{bootstrap}"
group_id = "{group}"
[topics]
input = "{input}"
output = "{output}"
dead_letter = "{dead_letter}"
[model]
path = "{model}"
[input]
format = "{record_format}"
[output]
format = "{record_format}"
[state]
directory = "{state}"
changelog = {changelog}
[worker]
guarantee = "{guarantee}"
commit_interval_ms = {interval_ms}
[http]
port = {port}
"""
CONFIG_FILE = "worker.toml"
DEAD_LETTERS = "bench-dead-letter"
LEADER_SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """One worker's settings. Exactly once has its changelog; at least once keeps states on its disk only.

    `overrides`: more settings as `--set` takes them. `options`: of `lstm-worker run`.
    """

    bootstrap: str
    group: str
    input: str
    output: str
    model: Path
    record_format: str = "binary"
    guarantee: str = "exactly_once"
    interval_ms: int = 100
    port: int = 0
    overrides: Sequence[str] = field(default_factory=tuple)
    options: Sequence[str] = ()

    def command(self, folder: Path) -> list[str]:
        """Write the configuration into the folder, where its states will lie, too; how to start the worker."""
        config = self.write(folder)
        options = [part for override in self.overrides for part in ("--set", override)]
        return [sys.executable, "-m", "worker", "run", "--config", str(config), *self.options, *options]

    def write(self, folder: Path) -> Path:
        """Write the configuration into the folder; returns the file."""
        config = folder / CONFIG_FILE
        config.write_text(
            CONFIG.format(
                bootstrap=self.bootstrap,
                group=self.group,
                input=self.input,
                output=self.output,
                dead_letter=DEAD_LETTERS,
                model=self.model,
                record_format=self.record_format,
                state=folder / "state",
                changelog="true" if self.guarantee == "exactly_once" else "false",
                guarantee=self.guarantee,
                interval_ms=self.interval_ms,
                port=self.port,
            )
        )
        return config

    def create_topics(self) -> None:
        """Output, dead letters and changelog on a real broker; those that exist stay as they are."""
        create_topics(self.bootstrap, [self.output, DEAD_LETTERS])
        if self.guarantee == "exactly_once":
            create_changelog(self.bootstrap, f"{self.group}-state-changelog")


def create_changelog(bootstrap: str, name: str) -> None:
    """A changelog as `lstm-worker topics` would create it."""
    create(bootstrap, [TopicPlan(name, PARTITIONS, "compact", properties=CHANGELOG_PROPERTIES)])


def create_topics(bootstrap: str, topics: Sequence[str]) -> None:
    """Topics of PARTITIONS partitions on a real broker."""
    create(bootstrap, [TopicPlan(topic, PARTITIONS) for topic in topics])


def create(bootstrap: str, plans: Sequence[TopicPlan]) -> None:
    """Create topics and wait until their leaders answer. Raises Retriable when they do not in time."""
    asking, clock = admin(bootstrap), SystemClock()
    asking.ensure_topics(plans)
    deadline = clock.monotonic() + LEADER_SECONDS_MAX
    for plan in plans:
        while True:
            try:
                asking.end_offsets(plan.name, range(PARTITIONS), read_committed=True)
                break
            except Retriable:
                if clock.monotonic() > deadline:
                    raise


def admin(bootstrap: str) -> KafkaAdmin:
    """A client without a log."""
    return KafkaAdmin({"bootstrap.servers": bootstrap, "log_level": 0})


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
