"""kill -9 at every named step of the transactional commit, on a real broker: exactly once, all the same.

20 kills at each step in `make soak`, 4 in `make test`.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.exactly_once import OPEN_STEPS, Trial

STEPS = (
    "polled",
    "begun",
    "produced",
    "dead_letters_sent",
    "changelog_sent",
    "flushed",
    "offsets_sent",
    "committed",
    "stored",
    "done",
)
KILLS = 20 if os.environ.get("LSTM_WORKER_SOAK") else 4
SIDE_BY_SIDE = 4
"""Trials at a time; a worker's life is mostly waiting for the group."""


@pytest.fixture(scope="module")
def trials(kafka, tmp_path_factory):
    folder = tmp_path_factory.mktemp("failpoints")

    def run(number: int, step: str) -> Trial:
        trial = Trial(kafka.bootstrap_servers, folder / step, seed=number, records=120 * KILLS + 600)
        trial.produce()
        worker = trial.start("w0", "--kill-at", step, "--times", str(KILLS), "--seed", str(number))
        trial.drain(20.0 * KILLS, alive=lambda: worker.process.poll() is None)
        trial.codes = trial.stop()
        return trial

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        started = {step: pool.submit(run, number, step) for number, step in enumerate(STEPS)}
        return {step: future.result() for step, future in started.items()}


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_killed_at_any_step_of_the_commit_publishes_every_output_exactly_once(trials, step, record_property):
    trial = trials[step]
    log = trial.workers["w0"].log()
    assert trial.codes == {"w0": 0}, log
    assert log.count(" killed ") == KILLS, log
    found = trial.check()
    hit = "open transaction" if step in OPEN_STEPS - {"polled"} else "no open transaction, or maybe"
    record_property("counts", f"{step}: {KILLS} kills ({hit}), {found.expected} outputs checked, 0 repeats")
