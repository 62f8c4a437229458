"""kill -9 at every step of the loop: no sample is lost, none is stepped twice.

Outputs may repeat; what repeats is the same output with the same numbers. Each step is hit 20 times, all steps side by
side, because a worker's life is mostly waiting for the embedded broker's group (3 s).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.model_files import PREFIX_FEATURES, logit_and_probability, prefix_model
from tests.oracle import Oracle
from tests.recordings import compare, produce, samples
from tests.stores import open_rows
from worker.adapters.clock import SystemClock
from worker.adapters.embedded_broker import PARTITIONS_PER_TOPIC, EmbeddedBroker
from worker.adapters.kafka_admin import KafkaAdmin
from worker.adapters.kafka_follower import FollowedRecord, Follower

STEPS = ("polled", "stepped", "produced", "dead_letters_sent", "flushed", "stored", "offsets_committed")
KILLS = 20
RECORDS = 1500
SECONDS_MAX = 900.0
"""Of 140 starts on two cores; the tensorflow engine takes 4 s for one."""

CONFIG = """
[kafka]
bootstrap_servers = "{bootstrap}"
[topics]
input = "samples-{step}"
output = "out-{step}"
dead_letter = "dead-{step}"
[model]
path = "{model}"
[state]
directory = "{folder}/state"
changelog = false
[worker]
guarantee = "at_least_once"
commit_interval_ms = 1
batch_records = 9
[http]
port = 0
"""


class Scenario:
    """One step's input, worker and what came out."""

    def __init__(self, step: str, bootstrap: str, folder: Path, model: Path, seed: int) -> None:
        self.step, self.bootstrap, self.folder = step, bootstrap, folder
        folder.mkdir()
        self.records = samples(seed, RECORDS, features=PREFIX_FEATURES)
        self.oracle = Oracle().feed(self.records)
        self.expected = {(row.partition, row.source_offset) for row in self.oracle.outputs}
        config = folder / "worker.toml"
        config.write_text(CONFIG.format(bootstrap=bootstrap, step=step, model=model, folder=folder))
        admin = KafkaAdmin({"bootstrap.servers": bootstrap})
        admin.touch_topics([f"samples-{step}", f"out-{step}", f"dead-{step}"])
        produce(bootstrap, f"samples-{step}", self.records)
        self.follower = Follower(bootstrap, f"out-{step}", range(PARTITIONS_PER_TOPIC))
        self.outputs: list[FollowedRecord] = []
        command = [sys.executable, "-m", "tests.faults.worker_process", "--config", str(config), "--kill-at", step]
        self.log = (folder / "lives.log").open("w+")
        self.process = subprocess.Popen(
            [*command, "--times", str(KILLS), "--group-per-life"], stdout=self.log, stderr=subprocess.STDOUT
        )

    def complete(self) -> bool:
        """Whether the last life has published the last output of every partition."""
        self.outputs.extend(self.follower.poll(0.05))
        return self.lives() == KILLS and self.expected <= self.seen()

    def seen(self) -> set[tuple[int, int]]:
        """Partition and input offset of every output so far."""
        return {
            (output.partition, int(output.value.split(b'"offset":')[1].split(b"}")[0]))
            for output in self.outputs
            if output.value
        }

    def lives(self) -> int:
        """Lives that were killed so far."""
        return (self.folder / "lives.log").read_text().count(" killed ")


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    model = prefix_model(folder)
    clock = SystemClock()
    with EmbeddedBroker() as broker:
        running = {
            step: Scenario(step, broker.bootstrap_servers, folder / step, model, seed)
            for seed, step in enumerate(STEPS)
        }
        deadline = clock.monotonic() + SECONDS_MAX
        waiting = list(running.values())
        while waiting and clock.monotonic() < deadline:
            waiting = [each for each in waiting if not each.complete() and each.process.poll() is None]
        for scenario in running.values():
            scenario.process.terminate()
        for scenario in running.values():
            scenario.process.wait(30)
            while found := scenario.follower.poll(1.0):
                scenario.outputs.extend(found)
            scenario.follower.close()
        yield running


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_killed_at_any_step_steps_every_sample_once(scenarios, step, record_property):
    scenario = scenarios[step]
    lives = (scenario.folder / "lives.log").read_text()
    assert scenario.process.returncode == 0, lives
    assert scenario.lives() == KILLS, lives
    found = compare(scenario.outputs, scenario.oracle, logit_and_probability, repeats_allowed=True)
    rows = open_rows(scenario.folder / "state", f"samples-{step}", PARTITIONS_PER_TOPIC)
    assert {stream: row.header["step"] for stream, row in rows.items()} == {
        stream: len(sequence.samples) for stream, sequence in scenario.oracle.open.items()
    }
    record_property(
        "counts",
        f"{step}: {KILLS} kills, {found.expected} outputs checked, {found.repeats} repeats, "
        f"largest difference {found.largest_difference:.0e}",
    )
