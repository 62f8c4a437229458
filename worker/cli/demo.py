"""`lstm-worker demo`: the whole job in one terminal, on an embedded broker.

Real recordings are replayed as keyed streams; a worker process consumes them as a member of a consumer group, and this
process follows the output topic like any other consumer. At the end every final probability is compared with Keras.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from rich.console import Console
from rich.live import Live

from worker.adapters.clock import SystemClock
from worker.adapters.embedded_broker import PARTITIONS_PER_TOPIC, EmbeddedBroker
from worker.adapters.kafka_admin import KafkaAdmin
from worker.adapters.kafka_follower import FollowedRecord, Follower
from worker.adapters.kafka_producer import KafkaProducer
from worker.cli.demo_view import Board, summary
from worker.core.types import Float32Array
from worker.errors import ConfigError, WorkerError
from worker.model.datasets import Recording, of_split, read_csv

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "basic_motions"
INPUT, OUTPUT, DEAD_LETTER = "samples", "probabilities", "samples-dead-letter"
SAMPLES_PER_SECOND = 10.0
"""The rate at which the recordings were made."""
FINISH_SECONDS_MAX = 30.0


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("demo")(demo)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Loop until Ctrl-C; the live page stays up.")] = False,
    speed: Annotated[float, typer.Option(min=0.1, max=100.0, help="Times the recordings' own speed of 10 Hz.")] = 1.0,
    port: Annotated[int, typer.Option(help="Port of the worker's page and metrics; 0 takes a free one.")] = 0,
) -> None:
    """Replay 40 real recordings as 40 streams and watch their probabilities move."""
    console = Console()
    data, model = EXAMPLE / "basic_motions.csv", EXAMPLE / "badminton.keras"
    if not (data.exists() and model.exists()):
        raise ConfigError(f"the demo needs {EXAMPLE}", "run it from a checkout of the repository")
    recordings = of_split(read_csv(data), "test")
    with (
        EmbeddedBroker() as broker,
        tempfile.TemporaryDirectory(prefix="lstm-worker-demo-") as folder,
        ThreadPoolExecutor(1) as background,
    ):
        KafkaAdmin({"bootstrap.servers": broker.bootstrap_servers}).touch_topics([INPUT, OUTPUT, DEAD_LETTER])
        page = port or _free_port()
        worker = _start_worker(Path(folder), broker.bootstrap_servers, model, page)
        reference = background.submit(keras_predictions, model, recordings)
        console.print(
            f"embedded broker {broker.bootstrap_servers}; one worker process; {len(recordings)} streams over "
            f"{PARTITIONS_PER_TOPIC} partitions; page and metrics: http://127.0.0.1:{page}/"
        )
        try:
            replay = Replay(broker.bootstrap_servers, recordings, speed)
            run = _follow(console, replay, broker.bootstrap_servers, worker, Path(folder), keep)
        except KeyboardInterrupt:
            _stop(worker)
            console.print("stopped")
            return
        _stop(worker)
        ok = summary(console, recordings, run.outputs, reference.result(), run.seconds)
    if not ok:
        raise WorkerError("the demo's outputs differ from Keras or are incomplete")


class Replay:
    """Produces the recordings step by step, one sample of every stream at each step, when it is due."""

    def __init__(self, bootstrap: str, recordings: list[Recording], speed: float) -> None:
        self._recordings = recordings
        self.streams = len(recordings)
        self._interval = 1.0 / (SAMPLES_PER_SECOND * speed)
        self._producer = KafkaProducer({"bootstrap.servers": bootstrap})
        self._clock = SystemClock()
        self.length = min(len(recording.features) for recording in recordings)
        self.step = 0
        self.started = self._clock.monotonic()

    def due(self) -> float:
        """Seconds until the next step; negative when it is late."""
        return self.started + self.step * self._interval - self._clock.monotonic()

    def send_step(self) -> None:
        """Send the next sample of every stream."""
        now = self._clock.now_ms()
        samples = [recording.features[self.step % self.length] for recording in self._recordings]
        self._producer.produce_many(
            INPUT,
            [i % PARTITIONS_PER_TOPIC for i in range(len(samples))],
            [recording.name.encode() for recording in self._recordings],
            [orjson.dumps({"features": sample}, option=orjson.OPT_SERIALIZE_NUMPY) for sample in samples],
            [now] * len(samples),
        )
        self.step += 1


@dataclass
class Run:
    """What came out: outputs per stream in order."""

    outputs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    count: int = 0
    seconds: float = 0.0

    def add(self, records: list[FollowedRecord], keep: bool) -> None:
        for record in records:
            published = orjson.loads(record.value or b"{}")
            mine = self.outputs.setdefault((record.key or b"").decode(), [])
            if keep and published["step"] == 1:
                mine.clear()
            mine.append(published)
        self.count += len(records)


def _follow(
    console: Console, replay: Replay, bootstrap: str, worker: subprocess.Popen[bytes], folder: Path, keep: bool
) -> Run:
    clock, run, board = SystemClock(), Run(), Board()
    follower = Follower(bootstrap, OUTPUT, range(PARTITIONS_PER_TOPIC))
    expected = replay.length * replay.streams
    finish_by = None
    with Live(console=console, refresh_per_second=8, transient=not console.is_terminal) as live:
        replay.started = clock.monotonic()
        while run.count < expected or keep:
            if (keep or replay.step < replay.length) and replay.due() <= 0:
                replay.send_step()
            run.add(follower.poll(min(0.05, max(replay.due(), 0.0)) if replay.step < replay.length else 0.05), keep)
            board.update(live, run.outputs, run.count, None if keep else expected)
            if worker.poll() is not None:
                raise WorkerError(f"the worker process ended with exit code {worker.returncode}: {worker_log(folder)}")
            if not keep and replay.step >= replay.length:
                finish_by = finish_by or clock.monotonic() + FINISH_SECONDS_MAX
                if clock.monotonic() > finish_by:
                    break
    run.seconds = clock.monotonic() - replay.started
    follower.close()
    return run


def keras_predictions(model: Path, recordings: list[Recording]) -> Float32Array:
    """`model.predict` of whole recordings, (N, K); imports Keras."""
    from worker.model.training import predict

    return predict(model, np.stack([recording.features for recording in recordings]))


def _start_worker(folder: Path, bootstrap: str, model: Path, port: int) -> subprocess.Popen[bytes]:
    config = folder / "worker.toml"
    config.write_text(
        f"""
[kafka]
bootstrap_servers = "{bootstrap}"
group_id = "demo"
[topics]
input = "{INPUT}"
output = "{OUTPUT}"
dead_letter = "{DEAD_LETTER}"
[model]
path = "{model}"
[state]
directory = "{folder / "state"}"
changelog = false
[worker]
guarantee = "at_least_once"
[http]
port = {port}
""",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "worker", "run", "--config", str(config)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=(folder / "worker.log").open("wb"))


def worker_log(folder: Path) -> str:
    """The last line that the worker process wrote."""
    lines = (folder / "worker.log").read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else "it wrote nothing"


def _stop(worker: subprocess.Popen[bytes]) -> None:
    worker.send_signal(signal.SIGTERM)
    try:
        code = worker.wait(20)
    except subprocess.TimeoutExpired:
        worker.kill()
        raise WorkerError("the worker did not end within 20 s of SIGTERM") from None
    if code != 0:
        raise WorkerError(f"the worker ended with exit code {code}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
