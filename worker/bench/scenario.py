"""One throughput round: the pass-through loop and the worker drain the same topic, one after the other."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from worker.adapters.kafka_admin import KafkaAdmin
from worker.bench.drain import Drained, Load, drain, free_port, load_topic, python

CONFIG = """
[kafka]
bootstrap_servers = "{bootstrap}"
group_id = "{group}"
[topics]
input = "{input}"
output = "{output}"
dead_letter = "bench-dead-letter"
[model]
path = "{model}"
[input]
format = "{record_format}"
[output]
format = "{record_format}"
[state]
directory = "{folder}/state"
changelog = false
[worker]
guarantee = "at_least_once"
commit_interval_ms = {interval_ms}
[http]
port = {port}
"""


@dataclass(frozen=True, slots=True)
class Round:
    """Both contenders on the same input, minutes apart at most."""

    passthrough: Drained
    worker: Drained

    @property
    def ratio(self) -> float:
        """The worker's rate to the pass-through's."""
        return self.worker.rate / self.passthrough.rate


class Throughput:
    """Loads the input once, then runs rounds. Runs on any broker; the embedded one keeps 5 MB a partition."""

    def __init__(self, bootstrap: str, load: Load, model: Path, interval_ms: int) -> None:
        self._bootstrap, self._load, self._model, self._interval_ms = bootstrap, load, model, interval_ms
        self._rounds = 0
        self._input = "bench-input"
        admin = KafkaAdmin({"bootstrap.servers": bootstrap, "log_level": 0})
        admin.touch_topics([self._input, "bench-dead-letter", "bench-passthrough", "bench-worker"])
        load_topic(bootstrap, self._input, load)

    def round(self) -> Round:
        """Raises ConfigError when a contender ends or stalls."""
        self._rounds += 1
        passthrough = drain(
            self._bootstrap,
            python(
                "worker.bench.passthrough",
                *("--bootstrap", self._bootstrap, "--input", self._input, "--output", "bench-passthrough"),
                *("--group", f"bench-passthrough-{self._rounds}", "--format", self._load.record_format),
                *("--interval-ms", str(self._interval_ms)),
            ),
            "bench-passthrough",
            self._load.records,
        )
        with tempfile.TemporaryDirectory(prefix="lstm-worker-bench-") as folder:
            config = Path(folder) / "worker.toml"
            port = free_port()
            config.write_text(
                CONFIG.format(
                    bootstrap=self._bootstrap,
                    group=f"bench-worker-{self._rounds}",
                    input=self._input,
                    output="bench-worker",
                    model=self._model,
                    record_format=self._load.record_format,
                    folder=folder,
                    interval_ms=self._interval_ms,
                    port=port,
                )
            )
            command = [sys.executable, "-m", "worker", "run", "--config", str(config)]
            worker = drain(self._bootstrap, command, "bench-worker", self._load.records, port)
        return Round(passthrough, worker)
