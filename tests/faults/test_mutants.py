"""The oracles are worth something: a worker that gets one decision wrong is caught on a real broker.

The worker as it is passes the same scenario with the same seed. `make soak` has all mutants, `make test` a few.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.faults.exactly_once import PARTITIONS, Trial
from tests.faults.mutants import MUTANTS

SOAK = bool(os.environ.get("LSTM_WORKER_SOAK"))
SEED = int(os.environ.get("LSTM_WORKER_SEED", "1"))
QUICK = ("states not rolled back", "unknown means aborted", "store before the commit")
CHOSEN = tuple(MUTANTS) if SOAK else QUICK
SIDE_BY_SIDE = 4
RECORDS = 600
KILLS = 4
RATE = 150.0
"""Records a second of a stream that goes on."""
DRAIN_SECONDS = 30.0
TAKEN_OVER_SECONDS = 12.0
"""Beyond the session timeout of a trial (6 s), with time for the other member to take over and process."""
HELD_BACK_SECONDS = 5.0


def killed(step: str, *options: str) -> Callable[[Trial, list[str]], None]:
    def play(trial: Trial, mutant: list[str]) -> None:
        trial.produce()
        kills = ["--kill-at", step, "--times", str(KILLS), "--seed", str(trial.seed)]
        forgotten = ["--forget-disk", str(trial.folder / "state-w0")] if "lost" in options else []
        worker = trial.start("w0", *kills, *forgotten, *mutant)
        trial.drain(DRAIN_SECONDS + 10 * KILLS, alive=lambda: worker.process.poll() is None)

    return play


def disturbed(*options: str) -> Callable[[Trial, list[str]], None]:
    """One worker whose transactions do not go smoothly."""

    def play(trial: Trial, mutant: list[str]) -> None:
        trial.produce()
        worker = trial.start("w0", *options, *mutant)
        trial.drain(DRAIN_SECONDS, alive=lambda: worker.process.poll() is None)

    return play


def rebalanced(trial: Trial, mutant: list[str]) -> None:
    """A second member joins, and takes partitions over, while a transaction is open."""
    trial.start("w0", *mutant, static=False)
    trial.wait_and_trickle(3.0, RATE / 2)
    trial.start("w1", *mutant, static=False)
    trial.wait_and_trickle(5.0, RATE / 2)
    trial.produce()
    trial.drain(DRAIN_SECONDS)


def frozen(step: str) -> Callable[[Trial, list[str]], None]:
    """One member stops between two steps of its commit, another one takes over, the first one goes on."""

    def play(trial: Trial, mutant: list[str]) -> None:
        trial.produce(RECORDS // 3)
        trial.start("w0", "--freeze-at", step, *mutant, static=False)
        deadline = trial.clock.monotonic() + DRAIN_SECONDS
        while not trial.is_stopped("w0") and trial.clock.monotonic() < deadline:
            trial.read()
        trial.start("w1", *mutant, static=False)
        trial.wait_and_trickle(TAKEN_OVER_SECONDS, RATE / 4)
        trial.send("w0", signal.SIGCONT)
        trial.wait_and_trickle(3.0, RATE / 4)
        trial.revive()
        trial.produce()
        trial.drain(DRAIN_SECONDS)

    return play


def rows_behind_an_open_transaction(trial: Trial, mutant: list[str]) -> None:
    """Somebody else's transaction in the changelog hides committed rows from a worker that lost its disk."""
    trial.produce(RECORDS // 3)
    trial.start("w0", *mutant)
    while trial.read() < len(trial.given) // 6:
        pass
    other = Producer({"bootstrap.servers": trial.bootstrap, "transactional.id": f"{trial.name}-other"})
    other.init_transactions(30)
    other.begin_transaction()
    for partition in range(PARTITIONS):
        other.produce(f"{trial.name}-changelog", b"", b"nobody's", partition)
    other.flush(30)
    trial.wait_and_trickle(3.0, RATE / 2)
    trial.kill("w0")
    shutil.rmtree(trial.folder / "state-w0")
    worker = trial.start("w0", *mutant)
    trial.wait_and_trickle(HELD_BACK_SECONDS, RATE / 2)
    other.abort_transaction(30)
    trial.produce()
    trial.drain(DRAIN_SECONDS, alive=lambda: worker.process.poll() is None)


SLOW = ("kafka.transaction_timeout_ms=60000",)
"""Transactions that outlive the session of the member that froze."""
SCENARIOS: dict[str, tuple[Callable[[Trial, list[str]], None], int, tuple[str, ...]]] = {
    "killed before the commit": (killed("offsets_sent"), 5, ()),
    "killed while storing": (killed("stored"), 5, ()),
    "killed after the commit": (killed("committed"), 5, ()),
    "killed and the disk lost": (killed("offsets_sent", "lost"), 5, ()),
    "aborted": (disturbed("--abort-every", "4"), 5, ()),
    "commit not answered": (disturbed("--lose-answers", "sent"), 5, ()),
    "commit not sent": (disturbed("--lose-answers", "unsent"), 5, ()),
    "rebalanced": (rebalanced, 400, ()),
    "frozen before the offsets": (frozen("flushed"), 100, SLOW),
    "frozen before the commit": (frozen("offsets_sent"), 100, SLOW),
    "rows behind an open transaction": (rows_behind_an_open_transaction, 50, ()),
}
"""How it is played, the commit interval in milliseconds, settings."""


def outcome(bootstrap: str, folder: Path, scenario: str, mutant: str | None) -> str:
    """What the oracles or the worker itself found wrong; "" where nothing is."""
    play, interval_ms, overrides = SCENARIOS[scenario]
    trial = Trial(bootstrap, folder, SEED, RECORDS, interval_ms=interval_ms, overrides=overrides)
    play(trial, [] if mutant is None else ["--mutant", mutant])
    trial.produce()
    codes = trial.stop()
    logs = [worker.log() for worker in trial.workers.values()]
    errors = [line for log in logs for line in log.splitlines() if line.startswith("error:")]
    if any(code not in (0, -signal.SIGTERM, 3) for code in codes.values()):
        return f"halted: {codes} {errors[-1:] or logs[-1][-2000:]}"
    try:
        trial.check()
    except AssertionError as error:
        return f"wrong: {' '.join(str(error).split())[:120]}"
    return ""


@pytest.fixture(scope="module")
def outcomes(kafka, tmp_path_factory) -> dict[tuple[str, str | None], str]:
    folder = tmp_path_factory.mktemp("mutants")
    scenarios = {MUTANTS[mutant].scenario for mutant in CHOSEN}
    runs: list[tuple[str, str | None]] = [(scenario, None) for scenario in sorted(scenarios)]
    runs += [(MUTANTS[mutant].scenario, mutant) for mutant in CHOSEN]

    def run(number: int) -> str:
        return outcome(kafka.bootstrap_servers, folder / str(number), *runs[number])

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return dict(zip(runs, pool.map(run, range(len(runs))), strict=True))


@pytest.mark.parametrize("mutant", CHOSEN)
def test_a_mutant_is_caught_and_the_worker_as_it_is_passes(outcomes, mutant, record_property):
    scenario = MUTANTS[mutant].scenario
    assert outcomes[scenario, None] == "", "the worker as it is fails, too"
    found = outcomes[scenario, mutant]
    assert found, f"survived: {MUTANTS[mutant].mistake}"
    record_property("counts", f"{mutant} ({scenario}): {found[:150]}")
