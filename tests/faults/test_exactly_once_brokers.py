"""Three brokers whose leaders are killed while a stream is running: exactly once, all the same.

Replication factor 3, two replicas in sync at least. `make soak` kills 30 leaders, `make test` 3. After every kill the
last stable offset must come up to the high watermark: no transaction is left open, no marker was lost.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.conftest import COUNTS
from tests.faults.exactly_once import OPEN_STEPS, PARTITIONS, Trial
from tests.kafka_fixtures import started
from tests.oracle import Given, Oracle
from tools.kafka.cluster import LocalKafka

SOAK = bool(os.environ.get("LSTM_WORKER_SOAK"))
SEED = int(os.environ.get("LSTM_WORKER_SEED", "1"))
KILLS = 30 if SOAK else 3
OPEN_SHARE_MIN = 0.3
"""Of the kills that must hit an open transaction for the run to say something."""
RATE = 150.0
"""Records a second of the stream."""
SECONDS_OF_A_KILL = 10.0
"""For which there is input: until the killed node is back and in sync."""
STABLE_SECONDS_MAX = 60.0
QUIET_SECONDS_MAX = 90.0
FOREIGN_TIMEOUT_MS = 30_000 if SOAK else 600_000
"""Of the foreign producer's transaction: the soak waits for it, else it is aborted when the worker has named it."""
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


def test_leaders_killed_under_load_leave_no_open_transaction_and_lose_nothing(brokers, tmp_path: Path, record_property):
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
        for number, role in enumerate(roles, 1):
            trial.wait_and_trickle(chance.uniform(0.3, 1.0), RATE)
            node = cluster.leader(role, chance)
            name = trial.one_in_a_transaction(RATE, 20.0)
            hit[role] += trial.workers[name].last_step in OPEN_STEPS
            brokers.kill_node(node)
            trial.wait_and_trickle(chance.uniform(0.5, 3.0), RATE)
            ended += trial.revive()
            if number < KILLS:
                # Else the trial ends with two nodes.
                brokers.start_node(node)
                ready = pool.submit(brokers.wait_ready)
                while not ready.done():
                    trial.wait_and_trickle(0.5, RATE)
                    ended += trial.revive()
                ready.result()
            cluster.wait_until_stable()
    ended += trial.revive()
    trial.produce()
    trial.drain(QUIET_SECONDS_MAX)
    codes = trial.stop()
    logs = "\n".join(worker.log()[-5000:] for worker in trial.workers.values())
    assert set(codes.values()) <= {0, -signal.SIGTERM}, f"{codes}\n{logs}"
    found = trial.check()
    record_property(
        COUNTS, f"leader kills: {KILLS}, {hit.total()} hit an open transaction, {ended} workers were restarted"
    )
    record_property(COUNTS, f"  {dict(Counter(roles))}, last stable offset = high watermark after each")
    record_property(COUNTS, f"  {found.expected} outputs checked, 0 lost, 0 doubled, 0 wrong (seed {SEED})")
    assert hit.total() >= OPEN_SHARE_MIN * KILLS, f"says nothing: only {hit.total()} of {KILLS} kills hit a transaction"


FOREIGN_INPUT, FOREIGN_CHANGELOG = 0, 1
"""Partitions in which another producer leaves a transaction open."""


def open_foreign_transaction(bootstrap: str, records: dict[str, int]) -> Producer:
    """One record for each topic's partition, delivered and neither committed nor aborted."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": f"foreign-{uuid.uuid4()}",
            "transaction.timeout.ms": FOREIGN_TIMEOUT_MS,
            "log_level": 0,
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for topic, partition in records.items():
        producer.produce(topic, b"foreign", b"foreign", partition)
    assert producer.flush(30) == 0
    return producer


def with_offsets_behind(given: list[Given], partition: int, first: int, second: int) -> list[Given]:
    """The input as it lies in its topic: a foreign record comes before record `first`, its marker before `second`."""
    shifts = [(number >= first) + (number >= second) for number in range(len(given))]
    return [
        replace(record, offset=record.offset + shift) if record.partition == partition else record
        for record, shift in zip(given, shifts, strict=True)
    ]


def wait_until(trial: Trial, condition: Callable[[], bool], what: str) -> None:
    deadline = trial.clock.monotonic() + QUIET_SECONDS_MAX
    while not condition():
        trial.read()
        assert trial.clock.monotonic() < deadline, f"{what}\n{trial.workers['w0'].log()[-5000:]}"


def test_a_foreign_transaction_left_open_is_waited_for_and_named(kafka, tmp_path: Path, record_property):
    trial = Trial(kafka.bootstrap_servers, tmp_path, SEED, records=600)
    trial.given = with_offsets_behind(trial.given, FOREIGN_INPUT, 200, 400)
    trial.oracle = Oracle().feed(trial.given)

    def readable(records: int, *, held_back: bool) -> int:
        """How many outputs a reader can see of the first records."""
        seen = [record for number, record in enumerate(trial.given[:records]) if number < 200 or not held_back]
        others = [record for record in trial.given[200:records] if held_back and record.partition != FOREIGN_INPUT]
        return len(Oracle().feed(seen + others).outputs)

    worker = trial.start("w0")
    trial.produce(200)
    wait_until(trial, lambda: trial.read() == readable(200, held_back=False), "the first records")
    topics = {f"{trial.name}-in": FOREIGN_INPUT, f"{trial.name}-changelog": FOREIGN_CHANGELOG}
    foreign = open_foreign_transaction(kafka.bootstrap_servers, topics)
    trial.produce(200)
    wait_until(trial, lambda: trial.read() == readable(400, held_back=True), "the other partitions go on")
    behind = sum(record.partition == FOREIGN_INPUT for record in trial.given[200:400])
    said = f"partition {FOREIGN_INPUT}: {behind + 1} records"
    wait_until(trial, lambda: said in worker.log(), "the worker says what its input waits for")
    assert trial.end("w0") == 0, worker.log()
    shutil.rmtree(tmp_path / "state-w0" / f"{trial.name}-in" / str(FOREIGN_CHANGELOG))
    worker = trial.start("w0")
    said = f"partition {FOREIGN_CHANGELOG} restores: nothing is stable from changelog offset"
    wait_until(trial, lambda: said in worker.log(), "the worker says what its restore waits for")
    if not SOAK:
        foreign.abort_transaction(30)
    wait_until(trial, lambda: trial.read() == readable(400, held_back=False), "the held back records")
    trial.produce()
    trial.drain(QUIET_SECONDS_MAX)
    assert trial.stop() == {"w0": 0}, worker.log()
    found = trial.check()
    record_property(
        COUNTS, f"a foreign transaction on input and changelog: waited for and named, {found.expected} outputs checked"
    )
