"""Where a partition's state comes from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.commit_metadata import CommitMetadata
from worker.core.restore import (
    Committed,
    Disk,
    Halt,
    HaltKind,
    InputTopic,
    Log,
    RestorePlan,
    RestoreProgress,
    plan_restore,
)

RETENTION_MS = 1000
NOW_MS = 10_000


def committed(next_offset: int, changelog_next_offset: int, watermark_ms: int = 5) -> Committed:
    return Committed(next_offset, CommitMetadata(changelog_next_offset, watermark_ms, "0123abcd", "pod-0"))


def plan(**changes: object) -> RestorePlan | Halt:
    """By default: nothing exists but an input of 100 records."""
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
    return plan_restore(**given_)


def test_a_new_group_begins_at_the_configured_end_of_the_input():
    assert plan() == RestorePlan(0, 0, input_next_offset=0, watermark_ms=-1)
    assert plan(start_at_end=True) == RestorePlan(0, 0, input_next_offset=100, watermark_ms=-1)
    assert plan(input_log=Log(40, 100)) == RestorePlan(0, 0, input_next_offset=40, watermark_ms=-1)


def test_a_fresh_disk_reads_the_whole_changelog_up_to_the_committed_target():
    found = plan(committed=committed(50, 30), changelog=Log(0, 45))
    assert found == RestorePlan(0, 30, input_next_offset=50, watermark_ms=5, rows_input_end=50)


def test_the_target_is_the_commits_and_not_the_end_of_the_changelog():
    """Beyond the target there may be rows of a transaction that is still open, or aborted."""
    found = plan(committed=committed(50, 30), changelog=Log(0, 1000), disk=Disk(50, 30, NOW_MS))
    assert isinstance(found, RestorePlan)
    assert (found.start, found.target) == (30, 30)


def test_a_disk_that_is_behind_reads_what_it_lacks():
    found = plan(committed=committed(50, 30), changelog=Log(0, 45), disk=Disk(20, 12, NOW_MS - 100))
    assert found == RestorePlan(12, 30, input_next_offset=50, watermark_ms=5, rows_input_end=50)


def test_a_disk_older_than_half_the_tombstone_retention_is_wiped():
    def at_age(age_ms: int) -> RestorePlan:
        found = plan(committed=committed(50, 30), changelog=Log(0, 45), disk=Disk(20, 12, NOW_MS - age_ms))
        assert isinstance(found, RestorePlan)
        return found

    assert (at_age(RETENTION_MS // 2).start, at_age(RETENTION_MS // 2).wipe) == (12, "")
    assert at_age(RETENTION_MS // 2 + 1).start == 0
    assert "delete.retention.ms" in at_age(RETENTION_MS // 2 + 1).wipe


@pytest.mark.parametrize("disk", [Disk(51, 30, NOW_MS), Disk(50, 31, NOW_MS), Disk(51, 31, 0)], ids=str)
def test_a_disk_ahead_of_the_committed_offset_halts(disk):
    found = plan(committed=committed(50, 30), changelog=Log(0, 45), disk=disk)
    assert isinstance(found, Halt)
    assert "ahead of the committed offset 50" in found.reason


def test_a_changelog_shorter_than_the_target_halts_because_the_broker_lost_data():
    found = plan(committed=committed(50, 30), changelog=Log(0, 29))
    assert isinstance(found, Halt)
    assert "ends at offset 29" in found.reason
    assert "lstm-worker reset" in found.hint


def test_a_changelog_whose_beginning_was_deleted_halts_when_it_is_needed():
    assert isinstance(plan(committed=committed(50, 30), changelog=Log(13, 45), disk=Disk(20, 12, NOW_MS)), Halt)
    assert isinstance(plan(committed=committed(50, 30), changelog=Log(1, 45)), Halt)
    assert isinstance(plan(committed=committed(50, 30), changelog=Log(12, 45), disk=Disk(20, 12, NOW_MS)), RestorePlan)


@pytest.mark.parametrize("input_log", [Log(51, 100), Log(0, 49)], ids=str)
def test_a_committed_offset_that_the_input_does_not_hold_halts(input_log):
    found = plan(committed=committed(50, 30), changelog=Log(0, 45), input_log=input_log)
    assert isinstance(found, Halt)
    assert "committed offset 50 is not in the input" in found.reason


@pytest.mark.parametrize("exists", [{"changelog": Log(0, 1)}, {"disk": Disk(50, 30, NOW_MS)}], ids=str)
def test_an_offset_that_somebody_else_committed_halts_when_there_is_state(exists):
    found = plan(committed=Committed(50, None), **exists)
    assert isinstance(found, Halt)
    assert "not written by this worker" in found.reason


def test_an_offset_that_somebody_else_committed_is_where_a_group_without_state_begins():
    assert plan(committed=Committed(50, None)) == RestorePlan(0, 0, input_next_offset=50, watermark_ms=-1)
    assert isinstance(plan(committed=Committed(101, None)), Halt)


def test_without_a_commit_the_changelog_must_show_no_row():
    """It holds what an aborted first transaction left, or rows of a group whose offsets were deleted."""
    found = plan(changelog=Log(0, 8))
    assert isinstance(found, RestorePlan)
    assert (found.start, found.target) == (0, 8)
    assert found.row_is_torn(last_offset=0)


def test_rows_with_state_but_without_any_commit_halt():
    found = plan(disk=Disk(20, 12, NOW_MS), changelog=Log(0, 12))
    assert isinstance(found, Halt)
    assert "no committed offset" in found.reason


def test_an_empty_disk_from_before_the_first_commit_resumes_where_it_began_to_wait():
    found = plan(disk=Disk(70, 0, NOW_MS, empty=True), start_at_end=True)
    assert isinstance(found, RestorePlan)
    assert found.input_next_offset == 70


def test_an_empty_disk_outside_of_the_input_begins_anew():
    found = plan(disk=Disk(20, 0, NOW_MS, empty=True), input_log=Log(40, 100))
    assert isinstance(found, RestorePlan)
    assert found.input_next_offset == 40


def test_a_row_at_or_beyond_the_committed_offset_is_torn():
    found = plan(committed=committed(50, 30), changelog=Log(0, 45))
    assert isinstance(found, RestorePlan)
    assert not found.row_is_torn(last_offset=49)
    assert found.row_is_torn(last_offset=50)


logs = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda ends: Log(min(ends), max(ends)))
disks = st.none() | st.builds(
    Disk, st.integers(0, 40), st.integers(0, 40), st.integers(NOW_MS - 2 * RETENTION_MS, NOW_MS), st.booleans()
)


@given(
    disk=disks,
    found_commit=st.none() | st.builds(committed, st.integers(0, 40), st.integers(0, 40)),
    changelog=logs,
    input_log=logs,
    start_at_end=st.booleans(),
)
def test_whatever_is_found_a_plan_reads_only_what_exists_and_resumes_inside_the_input(
    disk, found_commit, changelog, input_log, start_at_end
):
    found = plan(disk=disk, committed=found_commit, changelog=changelog, input_log=input_log, start_at_end=start_at_end)
    if isinstance(found, Halt):
        assert found.reason
        assert found.hint
        return
    assert found.start <= found.target <= changelog.high
    assert found.start == found.target or found.start >= changelog.low
    assert input_log.low <= found.input_next_offset <= input_log.high
    if found_commit is not None:
        assert found.input_next_offset == found_commit.next_offset
        assert found.start in (0, disk.changelog_next_offset if disk else 0)


# ---- progress


def test_a_restore_is_done_by_position_because_the_end_is_often_a_marker():
    progress = RestoreProgress(start=0, target=10, position=9, began=0.0)
    assert not progress.done
    progress.position = 10
    assert progress.done
    assert progress.remaining == 0


def test_a_position_beyond_the_target_is_done_and_leaves_nothing():
    progress = RestoreProgress(start=0, target=10, position=12, began=0.0)
    assert progress.done
    assert progress.remaining == 0


def test_the_estimate_is_at_the_rate_so_far():
    progress = RestoreProgress(start=100, target=500, position=100, began=7.0)
    assert progress.seconds_left(now=8.0) is None
    progress.position = 200
    assert progress.seconds_left(now=9.0) == pytest.approx(6.0)


# ---- resets


def after_a_reset(next_offset: int, changelog_next_offset: int, first: int) -> Committed:
    metadata = CommitMetadata(changelog_next_offset, -1, "0123abcd", "pod-0", changelog_first_offset=first)
    return Committed(next_offset, metadata)


def test_rows_from_before_a_reset_are_never_read():
    found = plan(committed=after_a_reset(10, 40, first=30), changelog=Log(0, 45))
    assert found == RestorePlan(30, 40, 10, -1, rows_input_end=10, changelog_first_offset=30)


def test_a_disk_from_before_a_reset_is_wiped_though_it_saw_more_input():
    found = plan(disk=Disk(90, 29, NOW_MS), committed=after_a_reset(10, 40, first=30), changelog=Log(0, 45))
    assert found == RestorePlan(30, 40, 10, -1, wipe="of before a reset", rows_input_end=10, changelog_first_offset=30)


def test_a_disk_from_after_a_reset_is_kept_and_must_not_be_ahead():
    arguments = {"committed": after_a_reset(10, 40, first=30), "changelog": Log(0, 45)}
    kept = plan(disk=Disk(5, 35, NOW_MS), **arguments)
    assert isinstance(kept, RestorePlan)
    assert (kept.start, kept.wipe) == (35, "")
    assert isinstance(plan(disk=Disk(11, 40, NOW_MS), **arguments), Halt)


def test_a_changelog_that_lost_its_beginning_after_the_reset_halts():
    assert isinstance(plan(committed=after_a_reset(10, 40, first=30), changelog=Log(31, 45)), Halt)


# ---- another input than the one that was committed to


@pytest.mark.parametrize(
    ("committed_to", "now", "halts"),
    [
        (("a", 4), ("a", 4), False),
        (("a", 4), ("b", 4), True),
        (("a", 4), ("a", 6), True),
        (("", 0), ("a", 4), False),
        (("a", 4), ("", 4), False),
    ],
)
def test_a_re_created_input_or_another_partition_count_halts_with_a_kind_of_its_own(committed_to, now, halts):
    metadata = CommitMetadata(30, -1, "0123abcd", "pod-0", *committed_to)
    found = plan(committed=Committed(50, metadata), changelog=Log(0, 45), input_topic=InputTopic(*now))
    assert isinstance(found, Halt) == halts
    assert not halts or found.kind is HaltKind.INPUT_CHANGED


def test_a_commit_is_surely_of_a_topic_only_when_both_say_the_same_id():
    commit = CommitMetadata(30, -1, "0123abcd", "pod-0", "a", 4)
    assert InputTopic("a", 4).is_of(commit)
    assert not InputTopic("b", 4).is_of(commit)
    assert not InputTopic("a", 5).is_of(commit)
    assert not InputTopic("", 4).is_of(CommitMetadata(30, -1, "0123abcd", "pod-0", "", 4))
    assert not InputTopic("a", 4).is_of(None)


def test_a_changelog_shorter_than_the_target_has_a_kind_of_its_own():
    found = plan(committed=committed(50, 30), changelog=Log(0, 29))
    assert isinstance(found, Halt)
    assert found.kind is HaltKind.CHANGELOG_TOO_SHORT
