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
from contextlib import closing, nullcontext
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
from worker.adapters.http_client import status_of_running_worker
from worker.adapters.kafka_admin import KafkaAdmin
from worker.adapters.kafka_follower import FollowedRecord, Follower
from worker.adapters.kafka_producer import KafkaProducer
from worker.cli.demo_view import Board, summary
from worker.core.types import Float32Array
from worker.errors import ConfigError, WorkerError
from worker.model.datasets import Recording, of_split, read_csv
from worker.model.training import KERAS_3

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "basic_motions"
INPUT, OUTPUT, DEAD_LETTER = "samples", "probabilities", "samples-dead-letter"
SAMPLES_PER_SECOND = 10.0
"""The rate at which the recordings were made."""
FINISH_SECONDS_MAX = 30.0
JOIN_SECONDS_MAX = 30.0


CONFIG = f"""
[kafka]
bootstrap_servers = "{{bootstrap}}"
group_id = "demo"
[topics]
input = "{INPUT}"
output = "{OUTPUT}"
dead_letter = "{DEAD_LETTER}"
[model]
path = "{{model}}"
[state]
directory = "{{state}}"
changelog = false
[worker]
guarantee = "at_least_once"
[http]
port = {{page}}
"""


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
        worker = WorkerProcess(Path(folder), broker.bootstrap_servers, model, page)
        reference = background.submit(keras_predictions, model, recordings, Path(folder))
        console.print(
            f"embedded broker {broker.bootstrap_servers}; one worker process; {len(recordings)} streams over "
            f"{PARTITIONS_PER_TOPIC} partitions; page and metrics: http://127.0.0.1:{page}/"
        )
        with closing(Replay(broker.bootstrap_servers, recordings, speed)) as replay:
            try:
                run = _follow(console, replay, broker.bootstrap_servers, worker, keep)
            except KeyboardInterrupt:
                console.print("stopped")
                return
            finally:
                worker.stop()
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

    def close(self) -> None:
        """Wait for what was sent and disconnect."""
        self._producer.flush()
        self._producer.close()


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


def _follow(console: Console, replay: Replay, bootstrap: str, worker: WorkerProcess, keep: bool) -> Run:
    clock, run, board = SystemClock(), Run(), Board()
    expected = replay.length * replay.streams
    finish_by = None
    _wait_for_group(console, worker)
    with (
        closing(Follower(bootstrap, OUTPUT, range(PARTITIONS_PER_TOPIC))) as follower,
        Live(console=console, refresh_per_second=8, transient=not console.is_terminal) as live,
    ):
        replay.started = clock.monotonic()
        while run.count < expected or keep:
            if (keep or replay.step < replay.length) and replay.due() <= 0:
                replay.send_step()
            run.add(follower.poll(min(0.05, max(replay.due(), 0.0)) if replay.step < replay.length else 0.05), keep)
            board.update(live, run.outputs, run.count, None if keep else expected)
            worker.check()
            if not keep and replay.step >= replay.length:
                finish_by = finish_by or clock.monotonic() + FINISH_SECONDS_MAX
                if clock.monotonic() > finish_by:
                    break
    run.seconds = clock.monotonic() - replay.started
    return run


def _wait_for_group(console: Console, worker: WorkerProcess) -> None:
    """The embedded broker's group waits 3 s for members before it hands out partitions."""
    clock = SystemClock()
    deadline = clock.monotonic() + JOIN_SECONDS_MAX
    with console.status("waiting for the consumer group") if console.is_terminal else nullcontext():
        while not worker.runs():
            worker.check()
            if clock.monotonic() > deadline:
                raise WorkerError(f"no partitions were assigned within {JOIN_SECONDS_MAX:g} s")


def keras_predictions(model: Path, recordings: list[Recording], folder: Path) -> Float32Array:
    """`model.predict` of whole recordings, (N, K), by Keras in a process of its own: it is slow to start and noisy."""
    samples, predictions = folder / "samples.npy", folder / "predictions.npy"
    np.save(samples, np.stack([recording.features for recording in recordings]))
    command = [sys.executable, "-m", "worker.model.training", str(model), str(samples), str(predictions), KERAS_3]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=(folder / "keras.log").open("wb"))
    return np.asarray(np.load(predictions)[:, -1], np.float32)


class WorkerProcess:
    """`lstm-worker run` in a process of its own."""

    def __init__(self, folder: Path, bootstrap: str, model: Path, page: int) -> None:
        self.page = page
        self._log = folder / "worker.log"
        config = folder / "worker.toml"
        config.write_text(
            CONFIG.format(bootstrap=bootstrap, model=model, state=folder / "state", page=page), encoding="utf-8"
        )
        command = [sys.executable, "-m", "worker", "run", "--config", str(config)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._log.open("wb"))

    def check(self) -> None:
        """Raises WorkerError with the worker's last line when it has ended."""
        if self._process.poll() is not None:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() or ["it wrote nothing"]
            raise WorkerError(f"the worker process ended with exit code {self._process.returncode}: {lines[-1]}")

    def runs(self) -> bool:
        """Whether it has joined the group and every partition runs."""
        answer = status_of_running_worker("127.0.0.1", self.page)
        return answer is not None and bool(answer["partitions"]) and bool(answer["ready"])

    def stop(self) -> None:
        """SIGTERM, as an orchestrator does. Raises WorkerError unless it ends with 0."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise WorkerError("the worker did not end within 20 s of SIGTERM") from None
        if code != 0:
            raise WorkerError(f"the worker ended with exit code {code}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
