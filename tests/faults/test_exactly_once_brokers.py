"""Three brokers whose leaders are killed while a stream is running: exactly once, all the same.

Replication factor 3, two replicas in sync at least. `make soak` kills 30 leaders, `make test` 3. After every kill the
last stable offset must come up to the high watermark: no transaction is left open, no marker was lost.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.exactly_once import OPEN_STEPS, PARTITIONS, Trial
from tests.kafka_fixtures import started
from tools.kafka.cluster import LocalKafka

SOAK = bool(os.environ.get("LSTM_WORKER_SOAK"))
SEED = int(os.environ.get("LSTM_WORKER_SEED", "1"))
KILLS = 30 if SOAK else 3
OPEN_SHARE_MIN = 0.3
"""Of the kills that must hit an open transaction for the run to say something."""
RATE = 150.0
"""Records a second of the stream."""
SECONDS_OF_A_KILL = 20.0
"""For which there is input: until the killed node is back and in sync."""
STABLE_SECONDS_MAX = 60.0
QUIET_SECONDS_MAX = 90.0
ROLES = ("input", "output", "changelog", "__consumer_offsets", "__transaction_state")
"""Whose leader is killed, in turn."""


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """Three nodes that notice a dead one, and let it come back, within two seconds."""
    quick = {"broker.session.timeout.ms": 2000, "broker.heartbeat.interval.ms": 500}
    folder = tmp_path_factory.mktemp("brokers") / "cluster"
    with started(LocalKafka(folder, nodes=3, properties=quick)) as cluster:
        yield cluster


def coordinator_partition(name: str, partitions: int = 4) -> int:
    """The partition of an internal topic that keeps a group or a transactional id: Java's hash of its name."""
    number = 0
    for character in name:
        number = (31 * number + ord(character)) & 0xFFFFFFFF
    signed = number - (1 << 32) if number >> 31 else number
    return (abs(signed) if signed != -(1 << 31) else 0) % partitions


class Cluster:
    """The trial's cluster as the faults see it."""

    def __init__(self, brokers: LocalKafka, trial: Trial) -> None:
        self.brokers = brokers
        self.trial = trial

    def leader(self, role: str, chance: random.Random) -> int:
        """The node that leads the role's partition; of the worker's own topics any one."""
        name = self.trial.name
        if role == "__consumer_offsets":
            return self.brokers.leader(role, coordinator_partition(name))
        if role == "__transaction_state":
            return self.brokers.leader(role, coordinator_partition(f"{name}-{chance.choice(['w0', 'w1'])}"))
        suffix = {"input": "in", "output": "out", "changelog": "changelog"}[role]
        return self.brokers.leader(f"{name}-{suffix}", chance.randrange(PARTITIONS))

    def wait_until_stable(self) -> None:
        """Everything that was produced was read, and last stable offset = high watermark in every partition."""
        for suffix in ("in", "out", "dead", "changelog"):
            for partition in range(PARTITIONS):
                self.brokers.wait_until_stable(f"{self.trial.name}-{suffix}", partition, STABLE_SECONDS_MAX)


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n  {text}")


def test_leaders_killed_under_load_leave_no_open_transaction_and_lose_nothing(brokers, tmp_path: Path, capsys):
    chance = random.Random(SEED)
    records = int(RATE * SECONDS_OF_A_KILL * KILLS)
    trial = Trial(brokers.bootstrap_servers, tmp_path, SEED, records, interval_ms=200, replication=3)
    cluster = Cluster(brokers, trial)
    for name in ("w0", "w1"):
        trial.start(name)
    trial.produce(100)
    roles = [ROLES[number % len(ROLES)] for number in range(KILLS)]
    chance.shuffle(roles)
    hit: Counter[str] = Counter()
    ended = 0
    with ThreadPoolExecutor(1) as pool:
        for role in roles:
            trial.wait_and_trickle(chance.uniform(0.3, 1.0), RATE)
            node = cluster.leader(role, chance)
            trial.one_in_a_transaction(RATE, 5.0)
            brokers.kill_node(node)
            hit[role] += any(worker.last_step in OPEN_STEPS for worker in trial.workers.values())
            trial.wait_and_trickle(chance.uniform(0.5, 3.0), RATE)
            ended += trial.revive()
            brokers.start_node(node)
            ready = pool.submit(brokers.wait_ready)
            while not ready.done():
                trial.wait_and_trickle(0.5, RATE)
                ended += trial.revive()
            ready.result()
            cluster.wait_until_stable()
    trial.revive()
    trial.produce()
    trial.drain(QUIET_SECONDS_MAX)
    codes = trial.stop()
    logs = "\n".join(worker.log()[-5000:] for worker in trial.workers.values())
    assert set(codes.values()) <= {0, -signal.SIGTERM}, f"{codes}\n{logs}"
    found = trial.check()
    say(capsys, f"leader kills: {KILLS}, {hit.total()} hit an open transaction, {ended} workers were restarted")
    say(capsys, f"  {dict(Counter(roles))}, last stable offset = high watermark after each")
    say(capsys, f"  {found.expected} outputs checked, 0 lost, 0 doubled, 0 wrong (seed {SEED})")
    assert hit.total() >= OPEN_SHARE_MIN * KILLS, f"says nothing: only {hit.total()} of {KILLS} kills hit a transaction"
