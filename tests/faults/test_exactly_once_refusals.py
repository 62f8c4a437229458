"""Situations in which a worker must not go on: one line with the reason, and an exit code of its own."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.faults.exactly_once import PARTITIONS, Trial, Worker

FENCED, STATE_DIRECTORY_IN_USE, CHANGELOG_TOO_SHORT, TIMEOUT_REFUSED = 3, 7, 9, 12
SECONDS_MAX = 120


def error_line(worker: Worker) -> str:
    """The one line that a person gets."""
    return [line for line in worker.log().splitlines() if line.startswith("error:")][-1]


def until_published(trial: Trial, outputs: int) -> None:
    deadline = trial.clock.monotonic() + SECONDS_MAX
    while trial.read() < outputs:
        assert trial.clock.monotonic() < deadline, f"{trial.read()} of {outputs} outputs"


@pytest.fixture
def trial(kafka, tmp_path):
    made = Trial(kafka.bootstrap_servers, tmp_path, 5, 600, interval_ms=50, batch_records=50)
    made.produce(300)
    return made


def test_a_worker_is_fenced_by_a_newer_one_of_the_same_name(trial):
    first = trial.start("w0")
    until_published(trial, 200)
    second = trial.start("w0-twin", "--set", "kafka.group_instance_id=w0", static=False)
    trial.produce()
    assert first.process.wait(SECONDS_MAX) == FENCED
    assert error_line(first).count("\n") == 0
    trial.drain(90)
    assert second.process.poll() is None
    second.process.terminate()
    assert second.process.wait(60) == 0
    trial.check()


def test_a_state_directory_belongs_to_one_process(trial):
    trial.start("w0")
    until_published(trial, 100)
    directory = f"state.directory={trial.folder / 'state-w0'}"
    second = trial.start("w1", "--set", directory)
    assert second.process.wait(SECONDS_MAX) == STATE_DIRECTORY_IN_USE
    assert "in use" in error_line(second)


def test_a_transaction_timeout_above_the_brokers_maximum_is_refused(trial):
    worker = trial.start("w0", "--set", "kafka.transaction_timeout_ms=1000000")
    assert worker.process.wait(SECONDS_MAX) == TIMEOUT_REFUSED
    assert "transaction.max.timeout.ms" in error_line(worker)


def test_a_changelog_that_lost_committed_rows_stops_the_worker(trial):
    trial.start("w0", static=False)
    until_published(trial, 200)
    assert set(trial.stop().values()) == {0}
    topic = f"{trial.name}-changelog"
    client = AdminClient({"bootstrap.servers": trial.bootstrap})
    client.delete_topics([topic])[topic].result(30)
    deadline = trial.clock.monotonic() + SECONDS_MAX
    while trial.admin.partition_count(topic) is not None and trial.clock.monotonic() < deadline:
        trial.read()
    client.create_topics([NewTopic(topic, PARTITIONS, 1, config={"cleanup.policy": "compact"})])[topic].result(30)
    worker = trial.start("w0", static=False)
    assert worker.process.wait(SECONDS_MAX) == CHANGELOG_TOO_SHORT
    assert "lstm-worker reset" in error_line(worker)
