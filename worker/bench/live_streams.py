"""Many live streams: memory, start after a clean stop with all of them on disk, restore to a fresh disk.

One worker is filled with open sequences first; what follows uses what it left behind: its changelog, its committed
offsets and its disk.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from worker.adapters.clock import SystemClock
from worker.adapters.http_client import status_of_running_worker
from worker.bench.drain import Drained, Job, drain, end
from worker.bench.load import PARTITIONS, Load, load_topic
from worker.bench.setup import WorkerSetup, admin, create_topics, free_port
from worker.errors import ConfigError

RESTORE_SECONDS_MAX = 300.0
CACHE_BYTES = 1 << 30
"""Enough for a million streams of the example model in memory; the default of 512 MiB holds 700,000."""
RECORDS_AFTER_RESTART = 1_000
_RUNS = "runs from offset"
_ASSIGNED = "assigned partitions"


@dataclass(frozen=True, slots=True)
class Restored:
    """`rows`: changelog offsets of all partitions; seconds from the assignment until the last partition ran."""

    rows: int
    seconds: float

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds


@dataclass
class LiveStreams:
    """Streams with an open sequence each, served exactly once by one worker in `folder`."""

    bootstrap: str
    model: Path
    features: int
    streams: int
    folder: Path
    committed: int = 0
    setup: WorkerSetup = field(init=False)

    def __post_init__(self) -> None:
        name = f"live-{uuid.uuid4().hex[:8]}"
        overrides = (f"state.cache_bytes={CACHE_BYTES}", "log.format=json")
        self.setup = WorkerSetup(
            self.bootstrap,
            name,
            f"{name}-input",
            f"{name}-output",
            self.model,
            port=free_port(),
            overrides=overrides,
        )
        create_topics(self.bootstrap, [self.setup.input])
        self.setup.create_topics()

    def fill(self, records: int) -> Drained:
        """Every stream in turn, until so many records are processed; the worker stops in order afterwards."""
        return self._drain(Load(records, self.streams, self.features))

    def restart(self) -> Drained:
        """The same disk again; `ready_seconds` of the answer: from the start to the first output."""
        return self._drain(Load(RECORDS_AFTER_RESTART, self.streams, self.features, seed=2))

    def restore(self) -> Restored:
        """A fresh disk: how long until every partition runs, by the worker's own log."""
        shutil.rmtree(self.folder / "state")
        changelog = f"{self.setup.group}-state-changelog"
        ends = admin(self.bootstrap).end_offsets(changelog, range(PARTITIONS), read_committed=True)
        log = self.folder / "restore.log"
        clock = SystemClock()
        with log.open("wb") as file:
            command = self.setup.command(self.folder)
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
        try:
            deadline = clock.monotonic() + RESTORE_SECONDS_MAX
            while log.read_text().count(_RUNS) < PARTITIONS:
                if process.poll() is not None or clock.monotonic() > deadline:
                    raise ConfigError("the worker did not restore", f"its log: {log.read_text()[-400:]}")
                status_of_running_worker("127.0.0.1", self.setup.port)
        finally:
            end(process)
        return Restored(sum(ends.values()), restore_seconds(log.read_text()))

    def _drain(self, load: Load) -> Drained:
        load_topic(self.bootstrap, self.setup.input, load)
        self.committed += load.records
        setup = self.setup
        job = Job(self.bootstrap, setup.input, setup.output, setup.group, load.records, self.committed)
        return drain(job, setup.command(self.folder), setup.port)


def restore_seconds(log: str) -> float:
    """From the assignment to the last partition that runs, in the JSON log of one worker."""
    events = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assigned = next(_seconds(event) for event in events if _ASSIGNED in event["event"])
    return max(_seconds(event) for event in events if _RUNS in event["event"]) - assigned


def _seconds(event: dict[str, str]) -> float:
    return datetime.fromisoformat(event["ts"]).timestamp()


@contextmanager
def live_streams(bootstrap: str, model: Path, features: int, streams: int) -> Iterator[LiveStreams]:
    """Topics and a folder of their own; the folder is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="lstm-worker-bench-") as folder:
        yield LiveStreams(bootstrap, model, features, streams, Path(folder))
