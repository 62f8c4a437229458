import json

import pytest

from worker.bench.commit_times import CommitTimer, read_commit_times
from worker.bench.live_streams import restore_seconds


class Clock:
    """Goes on by one millisecond with each look."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 0.001
        return self.now


def timed(*steps):
    timer = CommitTimer(Clock())
    for step in steps:
        timer(step)
    return timer.times()


def test_a_commit_lasts_from_the_dead_letters_to_the_stored_states():
    times = timed("polled", "dead_letters_sent", "changelog_sent", "committed", "stored", "done", "polled")
    assert times.total_ms == pytest.approx([4.0])


def test_a_commit_of_at_least_once_ends_with_its_offsets():
    assert timed("dead_letters_sent", "flushed", "stored", "offsets_committed").total_ms == pytest.approx([3.0])


def test_a_step_that_is_reached_for_each_partition_counts_as_one():
    times = timed("dead_letters_sent", "stored", "stored", "done")
    assert times.steps_ms == {"stored": pytest.approx([2.0]), "done": pytest.approx([1.0])}


def test_a_commit_that_did_not_come_to_its_end_is_left_out():
    assert timed("dead_letters_sent", "committed", "dead_letters_sent", "done").total_ms == pytest.approx([1.0])


def test_a_worker_that_left_no_file_has_no_commits(tmp_path):
    assert read_commit_times(tmp_path / "missing").total_ms == []


def test_a_restore_lasts_from_the_assignment_until_the_last_partition_runs():
    events = [
        ("2026-11-23T10:00:01.000Z", "assigned partitions [0, 1]"),
        ("2026-11-23T10:00:02.500Z", "partition 1 runs from offset 7"),
        ("2026-11-23T10:00:02.000Z", "partition 0 runs from offset 9"),
    ]
    log = "\n".join(["no JSON", *(json.dumps({"ts": at, "event": event}) for at, event in events)])
    assert restore_seconds(log) == pytest.approx(1.5)
