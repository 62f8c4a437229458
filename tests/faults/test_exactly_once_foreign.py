"""What others do to the topics: the worker stops and names `lstm-worker reset`, which moves offsets and state together.

Every stop has its exit code and names the command; after the reset everything is exactly once again.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from tests.faults.exactly_once import PARTITIONS, Trial, Worker, sorted_
from tests.model_files import PREFIX_FEATURES, logit_and_probability
from tests.oracle import Oracle
from tests.recordings import compare, produce, samples
from worker.adapters.kafka_follower import FollowedRecord

RECORDS = 400
TORN, INPUT_CHANGED = 4, 8
HINT = "lstm-worker reset"


@pytest.fixture
def trial(kafka, tmp_path):
    """One worker that has processed its whole input and was stopped."""
    overrides = ("kafka.consumer.topic.metadata.refresh.interval.ms=1000",)
    made = Trial(kafka.bootstrap_servers, tmp_path, 7, RECORDS, interval_ms=50, batch_records=100, overrides=overrides)
    made.produce()
    made.start("w0", static=False)
    made.drain(90)
    assert set(made.stop().values()) == {0}
    return made


def reset(trial: Trial, *options: str) -> str:
    """The command as a person gives it; its output."""
    state = f"state.directory={trial.folder / 'state-w0'}"
    command = [sys.executable, "-m", "worker", "reset", "--config", str(trial.config), "--set", state, "--yes"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def exit_of_a_start(trial: Trial) -> tuple[int, str]:
    """Exit code and last line of a worker that must not run."""
    worker = trial.start("w0", static=False)
    return worker.process.wait(60), error_line(worker)


def error_line(worker: Worker) -> str:
    """The one line that a person gets."""
    return [line for line in worker.log().splitlines() if line.startswith("error:")][-1]


def delete_records(trial: Trial, upto: dict[int, int]) -> None:
    client = AdminClient({"bootstrap.servers": trial.bootstrap})
    gone = [TopicPartition(f"{trial.name}-in", partition, offset) for partition, offset in upto.items()]
    for deleted in client.delete_records(gone).values():
        deleted.result(30)


def run_again(trial: Trial, expected: int) -> None:
    """One more life, until it has published `expected` outputs in all."""
    trial.start("w0", static=False)
    deadline = trial.clock.monotonic() + 90
    while trial.read() < expected and trial.clock.monotonic() < deadline:
        pass
    assert set(trial.stop().values()) == {0}
    assert trial.read() == expected


def source_offset(output: FollowedRecord) -> int:
    return int(json.loads(output.value or b"")["source"]["offset"])


def test_a_reset_to_the_earliest_offset_gives_every_output_once_more(trial):
    once = len(trial.oracle.outputs)
    assert f"{RECORDS}" not in reset(trial, "--to-earliest", "--dry-run")
    reset(trial, "--to-earliest")
    run_again(trial, 2 * once)
    outputs = sorted_(trial.all_outputs())
    per_partition = [[each for each in outputs if each.partition == partition] for partition in range(PARTITIONS)]
    again = [each for mine in per_partition for each in mine[len(mine) // 2 :]]
    assert compare(again, trial.oracle, logit_and_probability, repeats_allowed=False).expected == once
    trial.check_states()
    trial.check_offsets()


def test_a_reset_to_the_latest_offset_drops_open_sequences_and_what_was_not_read(trial):
    ends = trial.admin.end_offsets(f"{trial.name}-in", range(PARTITIONS), read_committed=False)
    trial.sender.send(samples(8, 40, features=PREFIX_FEATURES))
    reset(trial, "--to-latest")
    begins = trial.admin.end_offsets(f"{trial.name}-in", range(PARTITIONS), read_committed=False)
    assert sum(begins.values()) == sum(ends.values()) + 40
    after = samples(9, 40, features=PREFIX_FEATURES, first_offsets=[begins[each] for each in range(PARTITIONS)])
    trial.sender.send(after)
    expected = Oracle().feed(after)
    run_again(trial, len(trial.oracle.outputs) + len(expected.outputs))
    outputs = [each for each in trial.all_outputs() if source_offset(each) >= begins[each.partition]]
    assert compare(outputs, expected, logit_and_probability, repeats_allowed=False).expected == len(expected.outputs)


def test_offsets_moved_by_a_foreign_tool_stop_the_worker(trial):
    consumer = Consumer({"bootstrap.servers": trial.bootstrap, "group.id": trial.name, "log_level": 0})
    consumer.commit(offsets=[TopicPartition(f"{trial.name}-in", 1, 3)], asynchronous=False)
    consumer.close()
    code, line = exit_of_a_start(trial)
    assert (code, HINT in line) == (TORN, True), line
    assert "was not written by this worker" in line
    reset(trial, "--to-earliest")
    run_again(trial, 2 * len(trial.oracle.outputs))


def test_samples_deleted_before_they_were_read_stop_the_worker(trial):
    topic = f"{trial.name}-in"
    trial.sender.send(samples(8, 80, features=PREFIX_FEATURES))
    ends = trial.admin.end_offsets(topic, range(PARTITIONS), read_committed=False)
    delete_records(trial, ends)
    code, line = exit_of_a_start(trial)
    assert (code, HINT in line) == (TORN, True), line
    assert "is not in the input" in line


def test_samples_deleted_under_a_running_worker_stop_it(trial):
    topic = f"{trial.name}-in"
    worker = trial.start("w0", static=False)
    trial.sender.send(samples(10, 40, features=PREFIX_FEATURES))
    deadline = trial.clock.monotonic() + 60
    while trial.read() <= len(trial.oracle.outputs) and trial.clock.monotonic() < deadline:
        pass
    trial.send("w0", signal.SIGSTOP)
    for seed in range(11, 14):
        trial.sender.send(samples(seed, 400, features=PREFIX_FEATURES))
        ends = trial.admin.end_offsets(topic, range(PARTITIONS), read_committed=False)
        delete_records(trial, ends)
    trial.send("w0", signal.SIGCONT)
    code = worker.process.wait(60)
    line = error_line(worker)
    assert (code, HINT in line) == (TORN, True), line


def test_a_topic_that_was_re_created_stops_the_worker_until_a_reset(trial):
    topic = f"{trial.name}-in"
    client = AdminClient({"bootstrap.servers": trial.bootstrap})
    client.delete_topics([topic])[topic].result(30)
    deadline = trial.clock.monotonic() + 60
    while trial.admin.partition_count(topic) is not None and trial.clock.monotonic() < deadline:
        trial.read()
    client.create_topics([NewTopic(topic, PARTITIONS, 1, config={"retention.ms": "-1"})])[topic].result(30)
    # By a client that never saw the old topic: one that did may have a retried batch taken for a duplicate.
    produce(trial.bootstrap, topic, trial.given)
    ends = trial.admin.end_offsets(topic, range(PARTITIONS), read_committed=True)
    assert sum(ends.values()) == len(trial.given)
    code, line = exit_of_a_start(trial)
    assert (code, HINT in line) == (INPUT_CHANGED, True), line
    reset(trial, "--to-earliest")
    run_again(trial, 2 * len(trial.oracle.outputs))
    trial.check_states()
    trial.check_offsets()


def test_a_topic_that_gets_more_partitions_stops_the_worker(trial):
    topic = f"{trial.name}-in"
    worker = trial.start("w0", static=False)
    trial.sender.send(samples(10, 40, features=PREFIX_FEATURES))
    deadline = trial.clock.monotonic() + 60
    while trial.read() <= len(trial.oracle.outputs) and trial.clock.monotonic() < deadline:
        pass
    client = AdminClient({"bootstrap.servers": trial.bootstrap})
    client.create_partitions([NewPartitions(topic, PARTITIONS + 2)])[topic].result(30)
    code = worker.process.wait(90)
    line = error_line(worker)
    assert (code, HINT in line) == (INPUT_CHANGED, True), line
    code, line = exit_of_a_start(trial)
    assert (code, HINT in line) == (INPUT_CHANGED, True), line
