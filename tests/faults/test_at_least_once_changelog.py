"""At least once with a changelog, on a real broker: killed at every step, its disk lost every other time.

Outputs may repeat; no sample is lost or stepped twice, and the changelog alone brings the states back.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.exactly_once import Trial

STEPS = (
    "produced",
    "dead_letters_sent",
    "flushed",
    "changelog_sent",
    "changelog_flushed",
    "stored",
    "offsets_committed",
)
KILLS = 20 if os.environ.get("LSTM_WORKER_SOAK") else 4
SIDE_BY_SIDE = 4
SECONDS_MAX = 20.0 * KILLS + 60


@pytest.fixture(scope="module")
def trials(kafka, tmp_path_factory):
    folder = tmp_path_factory.mktemp("at-least-once")

    def run(number: int, step: str) -> Trial:
        trial = Trial(
            kafka.bootstrap_servers,
            folder / step,
            seed=number,
            records=120 * KILLS + 600,
            overrides=("worker.guarantee=at_least_once",),
        )
        trial.produce()
        disk = str(trial.folder / "state-w0")
        options = ("--kill-at", step, "--times", str(KILLS), "--seed", str(number), "--forget-disk", disk)
        worker = trial.start("w0", *options)
        expected = {(row.partition, row.source_offset) for row in trial.oracle.outputs}
        deadline = trial.clock.monotonic() + SECONDS_MAX
        while not expected <= trial.seen() and trial.clock.monotonic() < deadline and worker.process.poll() is None:
            trial.read()
        trial.codes = trial.stop()
        return trial

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        started = {step: pool.submit(run, number, step) for number, step in enumerate(STEPS)}
        return {step: future.result() for step, future in started.items()}


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_killed_at_any_step_that_may_lose_its_disk_steps_every_sample_once(trials, step, record_property):
    trial = trials[step]
    log = trial.workers["w0"].log()
    assert trial.codes == {"w0": 0}, log
    assert log.count(" killed ") == KILLS, log
    found = trial.check(repeats_allowed=True)
    record_property(
        "counts",
        f"{step}: {KILLS} kills, {KILLS // 2} disks lost, {found.expected} outputs checked, "
        f"{found.repeats} repeats, 0 lost, 0 stepped twice",
    )
