"""Workers that are killed, frozen and moved at random while a stream is running: exactly once, all the same.

`make soak` does all of it (200 kills, 50 freezes, 100 rebalances), `make test` a part. Each test prints its counts and
fails as "says nothing" when too few faults hit an open transaction.
"""

from __future__ import annotations

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.exactly_once import OPEN_STEPS, Trial

SOAK = bool(os.environ.get("LSTM_WORKER_SOAK"))
SEED = int(os.environ.get("LSTM_WORKER_SEED", "1"))
KILLS = 200 if SOAK else 10
FREEZES = 50 if SOAK else 2
FREEZES_SIDE_BY_SIDE = 5 if SOAK else 2
REBALANCES = 100 if SOAK else 4
OPEN_SHARE_MIN = 0.3
"""Of the faults that must hit an open transaction for the run to say something."""
RATE = 200.0
"""Records a second of the stream."""
FENCED = 3
LEFT = (0, -signal.SIGTERM)
"""Exit codes of a member that was asked to leave; one that is still starting just ends."""
FREEZE_SECONDS = 13.0
"""Beyond the session (6 s) and transaction (10 s) timeouts of a trial."""


def finish(trial: Trial, seconds: float) -> str:
    """The rest of the input, the end of all workers, all oracles."""
    trial.revive()
    trial.produce()
    trial.drain(seconds)
    codes = trial.stop()
    logs = "\n".join(worker.log()[-3000:] for worker in trial.workers.values())
    # One that was just revived may still be starting when SIGTERM comes; a thawed one may just learn that it is fenced.
    assert set(codes.values()) <= {*LEFT, FENCED}, f"{codes}\n{logs}"
    return f"{trial.check().expected} outputs checked, 0 lost, 0 doubled, 0 wrong"


def test_random_kills_of_one_of_three_workers(kafka, tmp_path, record_property):
    chance = random.Random(SEED)
    trial = Trial(kafka.bootstrap_servers, tmp_path, SEED, records=int(RATE * KILLS * 3), interval_ms=150)
    names = ["w0", "w1", "w2"]
    for name in names:
        trial.start(name)
    trial.wait_and_trickle(4.0, RATE)
    hit = 0
    for number in range(KILLS):
        trial.wait_and_trickle(chance.uniform(0.3, 1.5), RATE)
        # Every other kill is blind; on a busy machine most of those meet a worker that is still starting.
        name = trial.one_in_a_transaction(RATE / 2, 30.0) if number % 2 else chance.choice(names)
        hit += trial.kill(name) in OPEN_STEPS
        trial.start(name)
    result = finish(trial, 60 + 2 * KILLS)
    record_property("counts", f"random kills: {KILLS}, {hit} hit an open transaction, {result} (seed {SEED})")
    assert hit >= OPEN_SHARE_MIN * KILLS, f"says nothing: only {hit} of {KILLS} kills hit an open transaction"


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_workers_frozen_beyond_their_timeouts_do_not_come_back_as_zombies(kafka, tmp_path, record_property, protocol):
    rounds = FREEZES // FREEZES_SIDE_BY_SIDE

    def run(number: int) -> tuple[int, int, str]:
        chance = random.Random(f"{SEED}-{number}")
        records = int(RATE / 2 * FREEZE_SECONDS * 1.8 * rounds)
        trial = Trial(
            kafka.bootstrap_servers,
            tmp_path / str(number),
            SEED + number,
            records,
            interval_ms=400,
            overrides=(f"kafka.group_protocol={protocol}",),
        )
        for name in ("w0", "w1"):
            trial.start(name)
        hit = ended = 0
        for _ in range(rounds):
            trial.wait_and_trickle(chance.uniform(3.0, 4.0), RATE / 2)
            name = trial.one_in_a_transaction(RATE / 4, 30.0)
            trial.send(name, signal.SIGSTOP)
            hit += trial.workers[name].last_step in OPEN_STEPS
            trial.wait_and_trickle(FREEZE_SECONDS, RATE / 2)
            trial.send(name, signal.SIGCONT)
            trial.wait_and_trickle(1.5, RATE / 2)
            ended += trial.revive()
        return hit, ended, finish(trial, 90)

    with ThreadPoolExecutor(FREEZES_SIDE_BY_SIDE) as pool:
        results = list(pool.map(run, range(FREEZES_SIDE_BY_SIDE)))
    hit, ended = sum(each[0] for each in results), sum(each[1] for each in results)
    record_property(
        "counts",
        f"{protocol}: {FREEZES} freezes, {hit} hit an open transaction, {ended} workers gave up and were restarted",
    )
    for _, _, text in results:
        record_property("counts", f"  {text}")
    assert hit >= OPEN_SHARE_MIN * FREEZES, f"says nothing: only {hit} of {FREEZES} freezes hit an open transaction"


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_rebalances_by_joins_and_leaves(kafka, tmp_path, record_property, protocol):
    chance = random.Random(SEED)
    trial = Trial(
        kafka.bootstrap_servers,
        tmp_path,
        SEED,
        records=int(RATE * (REBALANCES * 2.5 + 10)),
        interval_ms=100,
        overrides=(f"kafka.group_protocol={protocol}",),
    )
    trial.start("d0", static=False)
    trial.wait_and_trickle(3.0, RATE)
    members, started = ["d0"], 1
    for _ in range(REBALANCES):
        if len(members) == 1 or (len(members) < 4 and chance.random() < 0.5):
            name = f"d{started % 6}" if f"d{started % 6}" not in members else f"e{started}"
            started += 1
            trial.start(name, static=False)
            members.append(name)
        else:
            name = members.pop(chance.randrange(len(members)))
            assert trial.end(name) in LEFT, trial.workers[name].log()
        trial.wait_and_trickle(chance.uniform(1.0, 2.0), RATE)
    trial.produce()
    trial.drain(90)
    for name in members:
        assert trial.end(name) in LEFT, trial.workers[name].log()
    found = trial.check()
    record_property(
        "counts", f"{protocol}: {REBALANCES} rebalances by joins and leaves, {found.expected} outputs checked"
    )
