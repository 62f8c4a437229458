"""Static members that restart: nobody else's partitions move, and nothing is published twice."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.faults.exactly_once import PARTITIONS, Trial

NAMES = ("w0", "w1", "w2")
ROUNDS = 5 if os.environ.get("LSTM_WORKER_SOAK") else 1
RECORDS = 6000
RATE = 50.0
"""Records a second of the stream."""
SETTLE_SECONDS_MAX = 60.0


class Group:
    """What the coordinator says of the trial's group."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._admin = AdminClient({"bootstrap.servers": trial.bootstrap, "log_level": 0})

    def assignment(self) -> dict[str, frozenset[int]]:
        """Partitions by instance id."""
        try:
            description = self._admin.describe_consumer_groups([self._trial.name])[self._trial.name].result(20)
        except KafkaException:
            # The coordinator of a group's first minute is still being found.
            return {}
        return {
            str(member.group_instance_id): frozenset(each.partition for each in member.assignment.topic_partitions)
            for member in description.members
        }

    def settled(self) -> dict[str, frozenset[int]]:
        """The assignment once every partition has an owner; the stream goes on meanwhile."""
        deadline = self._trial.clock.monotonic() + SETTLE_SECONDS_MAX
        while True:
            found = self.assignment()
            if len(found) == len(NAMES) and all(found.values()) and sum(map(len, found.values())) == PARTITIONS:
                return found
            assert self._trial.clock.monotonic() < deadline, f"the group does not settle: {found}"
            self._trial.wait_and_trickle(0.2, RATE)


@pytest.fixture
def running(kafka, tmp_path):
    """Three static workers under load, whose session timeout outlasts a restart; the group's settled assignment."""
    # Long enough for a restart on a machine that is busy with other things.
    overrides = ("kafka.session_timeout_ms=40000", "kafka.transaction_timeout_ms=50000")
    trial = Trial(kafka.bootstrap_servers, tmp_path, 3, RECORDS, interval_ms=100, overrides=overrides)
    for name in NAMES:
        trial.start(name)
    group = Group(trial)
    trial.produce(200)
    return trial, group, group.settled()


def finish(trial: Trial, record_property: Callable[[str, object], None], what: str) -> None:
    trial.produce()
    trial.drain(120)
    assert set(trial.stop().values()) == {0}
    found = trial.check()
    record_property("counts", f"{what}, {found.expected} outputs checked, 0 lost, 0 doubled, 0 wrong")


def published_by(trial: Trial, partitions: frozenset[int]) -> int:
    return sum(1 for record in trial.during if record.partition in partitions)


def wait_until_it_publishes(trial: Trial, partitions: frozenset[int]) -> None:
    """The restarted worker continues its own partitions."""
    before = published_by(trial, partitions)
    deadline = trial.clock.monotonic() + SETTLE_SECONDS_MAX
    while published_by(trial, partitions) == before:
        assert trial.clock.monotonic() < deadline, f"nothing is published of partitions {sorted(partitions)}"
        trial.wait_and_trickle(0.2, RATE)


def test_a_rolling_restart_moves_no_partition(running, record_property):
    trial, group, assignment = running
    for _ in range(ROUNDS):
        for name in NAMES:
            assert trial.end(name) == 0
            trial.wait_and_trickle(0.5, RATE)
            trial.start(name)
            wait_until_it_publishes(trial, assignment[name])
            assert group.assignment() == assignment
    finish(trial, record_property, f"{ROUNDS * len(NAMES)} restarts, no partition moved")


def test_a_static_member_that_is_killed_comes_back_without_a_rebalance(running, record_property):
    trial, group, assignment = running
    for _ in range(ROUNDS):
        trial.kill("w1")
        assert group.assignment() == assignment
        trial.start("w1")
        wait_until_it_publishes(trial, assignment["w1"])
        assert group.assignment() == assignment
    finish(trial, record_property, f"{ROUNDS} kills, no partition moved")
