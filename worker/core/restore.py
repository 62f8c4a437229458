"""Where a partition's state comes from: what its disk, its committed offset and its changelog say together.

The group's committed offset with our metadata is the truth: rows up to the changelog offset that it names belong to
exactly the input below it. A disk that holds an older prefix is brought up from the changelog; one that cannot be
brought up is wiped first; where that would lose data, nothing is touched and the worker stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from worker.core.commit_metadata import CommitMetadata

RESET_HINT = "move offsets and state together with `lstm-worker reset`"


@dataclass(frozen=True, slots=True)
class Committed:
    """The group's committed input offset; `metadata` None where somebody else wrote the commit."""

    next_offset: int
    metadata: CommitMetadata | None


@dataclass(frozen=True, slots=True)
class Disk:
    """A local store's position. `changelog_next_offset`: its rows are those of the changelog below it.

    `empty`: known to hold no row, so that nothing is lost with it.
    """

    input_next_offset: int
    changelog_next_offset: int
    written_at_ms: int
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Log:
    """Offsets of a log: `low` is the first that exists, `high` the exclusive end, transactions open or not."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """Read the changelog from `start` to `target`, then run from `input_next_offset`.

    `wipe`: why the local store must go first, "" where it is kept. `rows_input_end`: every restored row must have seen
    input below this offset only; 0 where no row may be found at all. `changelog_first_offset`: of the last reset, for
    the commits that follow.
    """

    start: int
    target: int
    input_next_offset: int
    watermark_ms: int
    wipe: str = ""
    rows_input_end: int = 0
    changelog_first_offset: int = 0

    def row_is_torn(self, last_offset: int) -> bool:
        """Whether a restored row saw input that is not committed, which a whole transaction cannot give."""
        return torn_row(last_offset, self.rows_input_end)


class HaltKind(Enum):
    """What a person must know apart from the rest."""

    TORN = "torn"
    INPUT_CHANGED = "input_changed"
    CHANGELOG_TOO_SHORT = "changelogtoo_short"


@dataclass(frozen=True, slots=True)
class Halt:
    """The partition must not run: nothing is deleted, a person decides."""

    reason: str
    hint: str = RESET_HINT
    kind: HaltKind = HaltKind.TORN


@dataclass(frozen=True, slots=True)
class InputTopic:
    """The input topic as it is now; `topic_id` is "" where the broker does not tell it."""

    topic_id: str
    partitions: int

    def is_of(self, commit: CommitMetadata | None) -> bool:
        """Whether the commit was surely made to this topic as it is now."""
        return (
            commit is not None
            and self.topic_id != ""
            and (commit.topic_id, commit.partitions) == (self.topic_id, self.partitions)
        )

    def changed_since(self, commit: CommitMetadata) -> Halt | None:
        """Whether it is another topic than the one that was committed to, whose streams lay elsewhere."""
        if commit.partitions and commit.partitions != self.partitions:
            return Halt(
                f"the input had {commit.partitions} partitions and has {self.partitions}: streams moved between them",
                kind=HaltKind.INPUT_CHANGED,
            )
        if commit.topic_id and self.topic_id and commit.topic_id != self.topic_id:
            return Halt("the input topic was re-created: its offsets begin anew", kind=HaltKind.INPUT_CHANGED)
        return None


def plan_restore(
    *,
    disk: Disk | None,
    committed: Committed | None,
    changelog: Log,
    input_log: Log,
    start_at_end: bool,
    now_ms: int,
    tombstone_retention_ms: int,
    input_topic: InputTopic | None = None,
) -> RestorePlan | Halt:
    """Decide for one partition. `disk` None: no store, or one that was never written. `start_at_end`: `input.start =
    "latest"`. Ask for `committed` with a stable read, and for `changelog` after it: an end taken before may be too low.
    """
    if committed is None:
        return _without_commit(disk, changelog, input_log, start_at_end)
    if committed.metadata is None:
        return foreign_commit(disk, committed, changelog, input_log)
    if input_topic is not None and (changed := input_topic.changed_since(committed.metadata)) is not None:
        return changed
    target, first = committed.metadata.changelog_next_offset, committed.metadata.changelog_first_offset
    if target > changelog.high:
        return too_short(changelog, target)
    if not input_log.low <= committed.next_offset <= input_log.high:
        return outside_input(committed.next_offset, input_log)
    reset_since = disk is not None and disk.changelog_next_offset < first
    if (
        disk is not None
        and not reset_since
        and (disk.changelog_next_offset > target or disk.input_next_offset > committed.next_offset)
    ):
        return Halt(
            f"the local state is ahead of the committed offset {committed.next_offset}: it holds input up to "
            f"{disk.input_next_offset}; somebody moved the offset back, or the broker lost commits"
        )
    start, wipe = (0, "of before a reset") if reset_since else disk_start(disk, now_ms, tombstone_retention_ms)
    start = max(start, first)
    if start < target and changelog.low > start:
        return beginning_gone(changelog, start)
    return RestorePlan(
        start, target, committed.next_offset, committed.metadata.watermark_ms, wipe, committed.next_offset, first
    )


def _without_commit(disk: Disk | None, changelog: Log, input_log: Log, start_at_end: bool) -> RestorePlan | Halt:
    """A new group, or one whose first transaction is not through yet, or whose offsets were deleted or expired.

    They differ by whether the changelog holds a committed row, so it is read to its end and must show none.
    """
    if disk is not None and disk.input_next_offset > 0 and not disk.empty:
        return Halt(f"the group has no committed offset, but local state of input offset {disk.input_next_offset}")
    begin = input_log.high if start_at_end else input_log.low
    if disk is not None and input_log.low <= disk.input_next_offset <= input_log.high:
        # Where it began to wait for its first record; "latest" must not skip what arrived since.
        begin = disk.input_next_offset
    if changelog.low > 0:
        return beginning_gone(changelog, 0)
    return RestorePlan(0, changelog.high, begin, -1)


def foreign_commit(disk: Disk | None, committed: Committed, changelog: Log, input_log: Log) -> RestorePlan | Halt:
    """A commit that somebody else made: a place to begin only where there is no state."""
    if changelog.high > 0 or disk is not None:
        return Halt(f"the committed offset {committed.next_offset} was not written by this worker, and state exists")
    if not input_log.low <= committed.next_offset <= input_log.high:
        return outside_input(committed.next_offset, input_log)
    return RestorePlan(0, 0, committed.next_offset, -1)


def disk_start(disk: Disk | None, now_ms: int, tombstone_retention_ms: int) -> tuple[int, str]:
    """From which changelog offset to read, and why the disk cannot be kept."""
    if disk is None:
        return 0, ""
    if disk.written_at_ms >= 0 and now_ms - disk.written_at_ms > tombstone_retention_ms // 2:
        # Tombstones may be gone from the changelog: a deleted stream would come back to life.
        return 0, "older than half of the changelog's delete.retention.ms"
    return disk.changelog_next_offset, ""


def too_short(changelog: Log, target: int) -> Halt:
    """The changelog lacks what the committed state needs."""
    return Halt(
        f"the changelog ends at offset {changelog.high}, the committed state needs {target}: "
        "the broker lost data, or the topic was re-created",
        "restore the changelog topic, or " + RESET_HINT,
        HaltKind.CHANGELOG_TOO_SHORT,
    )


def beginning_gone(changelog: Log, start: int) -> Halt:
    """The changelog lacks its first rows."""
    return Halt(
        f"the changelog begins at offset {changelog.low}, rows from {start} on are needed: records were deleted, which "
        "compaction alone never does",
        "give the changelog cleanup.policy=compact, then " + RESET_HINT,
    )


def outside_input(next_offset: int, input_log: Log) -> Halt:
    """The input does not hold the offset to resume at."""
    return Halt(
        f"the committed offset {next_offset} is not in the input, which holds {input_log.low} to {input_log.high}: "
        "the topic was re-created, or samples were deleted before they were read"
    )


def torn_row(last_offset: int, input_next_offset: int) -> bool:
    """Whether a row saw input at or beyond `input_next_offset`."""
    return last_offset >= input_next_offset


@dataclass(slots=True)
class RestoreProgress:
    """Progress in offsets, because markers, aborted and compacted records leave gaps in what is read."""

    start: int
    target: int
    position: int
    began: float

    @property
    def remaining(self) -> int:
        return max(0, self.target - self.position)

    @property
    def done(self) -> bool:
        """By the reader's position, never by the last record seen: the end is often a transaction marker."""
        return self.position >= self.target

    def seconds_left(self, now: float) -> float | None:
        """An estimate at the rate so far; None before there is one."""
        read = self.position - self.start
        elapsed = now - self.began
        return None if read <= 0 or elapsed <= 0 else self.remaining * elapsed / read
