"""Restoring at least once: rows count up to the last progress record."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.commit_metadata import CommitMetadata
from worker.core.restore import Committed, Disk, Halt, InputTopic, Log, RestorePlan
from worker.core.restore_by_progress import (
    PROGRESS_KEY,
    ProgressGroups,
    ProgressRecord,
    misplaced_progress,
    parse_progress,
    plan_restore_by_progress,
)
from worker.errors import StateTorn

RETENTION_MS = 1000
NOW_MS = 10_000


def committed(next_offset: int, changelog_next_offset: int, first: int = 0) -> Committed:
    return Committed(
        next_offset, CommitMetadata(changelog_next_offset, 5, "0123abcd", "pod-0", "a", 4, changelog_first_offset=first)
    )


def by_progress(**changes: object) -> RestorePlan | Halt:
    given_ = {
        "disk": None,
        "committed": None,
        "changelog": Log(0, 0),
        "input_log": Log(0, 100),
        "start_at_end": False,
        "now_ms": NOW_MS,
        "tombstone_retention_ms": RETENTION_MS,
        **changes,
    }
    return plan_restore_by_progress(**given_)


def test_at_least_once_reads_the_changelog_to_its_end():
    assert by_progress(changelog=Log(0, 45)) == RestorePlan(0, 45, input_next_offset=0, watermark_ms=-1)


def test_at_least_once_resumes_at_the_disks_own_input_offset_though_the_group_committed_less():
    found = by_progress(changelog=Log(0, 45), disk=Disk(20, 45, NOW_MS), committed=committed(15, 40))
    assert found == RestorePlan(45, 45, input_next_offset=20, watermark_ms=5)


def test_at_least_once_halts_on_a_changelog_that_ends_before_the_disk_does():
    assert isinstance(by_progress(changelog=Log(0, 44), disk=Disk(20, 45, NOW_MS)), Halt)


def test_at_least_once_wipes_an_old_disk_too():
    found = by_progress(changelog=Log(0, 45), disk=Disk(20, 12, NOW_MS - RETENTION_MS))
    assert isinstance(found, RestorePlan)
    assert found.start == 0
    assert found.wipe


def test_a_committed_offset_ahead_of_the_restored_progress_halts():
    assert misplaced_progress(20, 20, Log(0, 100)) is None
    assert misplaced_progress(20, 15, Log(0, 100)) is None
    assert misplaced_progress(20, None, Log(0, 100)) is None
    assert "ahead of the state" in misplaced_progress(20, 21, Log(0, 100)).reason
    assert "not in the input" in misplaced_progress(20, 15, Log(0, 19)).reason


progress_records = st.builds(ProgressRecord, st.integers(0, (1 << 63) - 1), st.integers(-1, (1 << 63) - 1))


@given(progress_records)
def test_a_progress_record_is_read_back(record):
    assert parse_progress(record.encode()) == record


@given(st.none() | st.binary(max_size=40))
def test_bytes_of_somebody_else_are_no_progress_record(value):
    found = parse_progress(value)
    assert found is None or found.encode() == value


def test_a_damaged_progress_record_is_a_torn_changelog():
    with pytest.raises(StateTorn, match="offset 17"):
        ProgressGroups().add(17, PROGRESS_KEY, b"short")


def test_rows_after_the_last_progress_record_are_never_given_out():
    groups = ProgressGroups()
    assert groups.add(0, b"a", b"1") is None
    assert groups.add(1, b"b", None) is None
    found = groups.add(2, PROGRESS_KEY, ProgressRecord(5, 77).encode())
    assert found is not None
    assert found.rows == [(b"a", b"1"), (b"b", None)]
    assert (found.progress, found.changelog_next_offset) == (ProgressRecord(5, 77), 3)
    assert groups.add(3, b"a", b"2") is None


def test_rows_of_a_former_owner_that_wrote_late_are_dropped():
    groups = ProgressGroups(input_next_offset=10)
    groups.add(0, b"a", b"old")
    assert groups.add(1, PROGRESS_KEY, ProgressRecord(9, 0).encode()) is None
    groups.add(2, b"b", b"new")
    found = groups.add(3, PROGRESS_KEY, ProgressRecord(10, 0).encode())
    assert found is not None
    assert found.rows == [(b"b", b"new")]


@given(
    commits=st.lists(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.none() | st.binary()), max_size=4)),
    read=st.integers(0, 60),
)
def test_a_restore_that_reads_any_prefix_has_the_state_of_a_whole_number_of_commits(commits, read):
    """However the worker died, the rows and the input offset that are restored belong together."""
    log: list[tuple[bytes, bytes | None]] = []
    states: dict[int, dict[bytes, bytes | None]] = {0: {}}
    for number, rows in enumerate(commits, start=1):
        log.extend(rows)
        log.append((PROGRESS_KEY, ProgressRecord(number, -1).encode()))
        states[number] = {**states[number - 1], **dict(rows)}
    groups, state, position = ProgressGroups(), {}, 0
    for offset, (key, value) in enumerate(log[:read]):
        found = groups.add(offset, key, value)
        if found is not None:
            state.update(found.rows)
            position = found.progress.input_next_offset
    assert state == states[position]
    assert position == sum(key == PROGRESS_KEY for key, _ in log[:read])


def test_a_group_without_progress_begins_at_its_committed_offset():
    found = by_progress(changelog=Log(0, 45), committed=committed(15, 40))
    assert found == RestorePlan(0, 45, input_next_offset=15, watermark_ms=5)


def test_a_commit_of_somebody_else_halts_when_there_is_state():
    assert isinstance(by_progress(changelog=Log(0, 45), committed=Committed(15, None)), Halt)


def test_another_input_topic_halts():
    arguments = {"changelog": Log(0, 45), "committed": committed(15, 40)}
    assert isinstance(by_progress(input_topic=InputTopic("b", 4), **arguments), Halt)
    assert isinstance(by_progress(input_topic=InputTopic("a", 4), **arguments), RestorePlan)


def test_a_changelog_that_ends_before_the_commit_halts():
    assert isinstance(by_progress(changelog=Log(0, 39), committed=committed(15, 40)), Halt)


def test_a_disk_from_before_a_reset_is_wiped_and_nothing_from_before_it_is_read():
    found = by_progress(changelog=Log(0, 45), disk=Disk(90, 29, NOW_MS), committed=committed(15, 30, first=30))
    assert found == RestorePlan(30, 45, 15, 5, wipe="of before a reset", changelog_first_offset=30)


def test_keys_of_unfinished_and_dropped_commits_are_superseded_until_they_are_written_again():
    groups = ProgressGroups(input_next_offset=10)
    groups.add(0, b"late", b"x")
    groups.add(1, PROGRESS_KEY, ProgressRecord(9, 0).encode())
    groups.add(2, b"unfinished", b"y")
    assert groups.superseded_keys() == [b"late", b"unfinished"]
    groups.add(3, b"late", b"z")
    groups.add(4, PROGRESS_KEY, ProgressRecord(11, 0).encode())
    assert groups.superseded_keys() == []
