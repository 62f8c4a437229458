"""Throughput rounds: pass-through loops and workers drain the same topic, one after the other.

Contenders stand side by side in every round because a shared machine drifts: ratios of one round mean something,
rates of different minutes do not.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from worker.bench.checking import check_outputs
from worker.bench.drain import Drained, Job, drain, python
from worker.bench.load import Load, load_topic
from worker.bench.setup import (
    CONFIG_FILE,
    DEAD_LETTERS,
    WorkerSetup,
    admin,
    create_changelog,
    create_topics,
    free_port,
)

PASS_THROUGH = "pass-through"
AT_LEAST_ONCE = "at_least_once"
PASS_THROUGH_TRANSACTIONAL = "pass-through transactional"
PASS_THROUGH_STATEFUL = "pass-through stateful"
EXACTLY_ONCE = "exactly_once"
TWO_PROCESSES = "exactly_once 2 processes"
CONTENDERS = (
    PASS_THROUGH,
    AT_LEAST_ONCE,
    PASS_THROUGH_TRANSACTIONAL,
    PASS_THROUGH_STATEFUL,
    EXACTLY_ONCE,
    TWO_PROCESSES,
)
REFERENCES = {
    AT_LEAST_ONCE: PASS_THROUGH,
    EXACTLY_ONCE: PASS_THROUGH_STATEFUL,
    TWO_PROCESSES: PASS_THROUGH_STATEFUL,
}
"""What each worker is compared with: a loop that gives the same guarantee and keeps as many bytes of state."""
OPTIONS = {TWO_PROCESSES: ("--processes", "2")}


@dataclass(frozen=True, slots=True)
class Throughput:
    """One input and one commit interval; `name` makes the topics of this measurement its own."""

    name: str
    bootstrap: str
    load: Load
    model: Path
    interval_ms: int
    embedded: bool = False

    @property
    def input(self) -> str:
        """The topic that holds the load."""
        return f"{self.name}-input"

    def prepare(self) -> None:
        """Produce the input."""
        if self.embedded:
            admin(self.bootstrap).touch_topics([self.input, DEAD_LETTERS])
        else:
            create_topics(self.bootstrap, [self.input])
        load_topic(self.bootstrap, self.input, self.load)

    def run(self, contender: str, number: int) -> Drained:
        """Let one contender drain the input in round `number`; a worker's outputs are checked, of the embedded broker
        those that it has not forgotten. Raises ConfigError when it ends, stalls, or has wrong outputs."""
        group = f"{self.name}-{contender.replace(' ', '-')}-{number}"
        output = f"{group}-output"
        if self.embedded:
            admin(self.bootstrap).touch_topics([output])
        job = Job(self.bootstrap, self.input, output, group, self.load.records, self.load.records)
        with tempfile.TemporaryDirectory(prefix="lstm-worker-bench-") as folder:
            if contender not in REFERENCES:
                if not self.embedded:
                    create_topics(self.bootstrap, [output])
                return drain(job, self._pass_through(contender, job, folder))
            setup = WorkerSetup(
                self.bootstrap,
                group,
                self.input,
                output,
                self.model,
                record_format=self.load.record_format,
                guarantee=AT_LEAST_ONCE if contender == AT_LEAST_ONCE else EXACTLY_ONCE,
                interval_ms=self.interval_ms,
                port=free_port(),
                options=OPTIONS.get(contender, ()),
            )
            if not self.embedded:
                setup.create_topics()
            # Several processes have several loops: no one's stages say where the time went.
            port = 0 if contender in OPTIONS else setup.port
            drained = drain(job, setup.command(Path(folder)), port)
            config = Path(folder) / CONFIG_FILE
            check_outputs(self.bootstrap, output, self.load, config, newest_only=self.embedded)
            return drained

    def _pass_through(self, contender: str, job: Job, folder: str) -> list[str]:
        options = ["--transactional"] if contender != PASS_THROUGH else []
        if contender == PASS_THROUGH_STATEFUL:
            changelog = f"{job.output}-changelog"
            create_changelog(self.bootstrap, changelog)
            options += ["--changelog", changelog, "--state", f"{folder}/state"]
        return python(
            "worker.bench.passthrough",
            *("--bootstrap", self.bootstrap, "--input", job.input, "--output", job.output, "--group", job.group),
            *("--format", self.load.record_format, "--interval-ms", str(self.interval_ms)),
            *options,
        )
