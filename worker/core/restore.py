"""Where a partition's state comes from: what its disk, its committed offset and its changelog say together.

The group's committed offset with our metadata is the truth: rows up to the changelog offset that it names belong to
exactly the input below it. A disk that holds an older prefix is brought up from the changelog; one that holds anything
else is set aside or, where that would lose data, nothing is touched and the worker stops.
"""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.commit_metadata import CommitMetadata

RESET_HINT = "move offsets and state together with `lstm-worker reset`"


@dataclass(frozen=True, slots=True)
class Committed:
    """The group's committed input offset; `metadata` None where somebody else wrote the commit."""

    next_offset: int
    metadata: CommitMetadata | None


@dataclass(frozen=True, slots=True)
class Disk:
    """A local store's position. `changelog_next_offset`: its rows are those of the changelog below it."""

    input_next_offset: int
    changelog_next_offset: int
    written_at_ms: int


@dataclass(frozen=True, slots=True)
class Log:
    """Offsets of a log: `low` is the first that exists, `high` the exclusive end, transactions open or not."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """Read the changelog from `start` to `target`, then run from `input_next_offset`.

    `wipe`: why the local store must go first, "" where it is kept.
    """

    start: int
    target: int
    input_next_offset: int
    watermark_ms: int
    wipe: str = ""


@dataclass(frozen=True, slots=True)
class Halt:
    """The partition must not run: nothing is deleted, a person decides."""

    reason: str
    hint: str = RESET_HINT


def plan_restore(
    *,
    disk: Disk | None,
    committed: Committed | None,
    changelog: Log,
    input_log: Log,
    start_at_end: bool,
    now_ms: int,
    tombstone_retention_ms: int,
) -> RestorePlan | Halt:
    """Decide for one partition. `disk` None: no store, or an empty one. `start_at_end`: `input.start = "latest"`."""
    if committed is None:
        return _without_commit(disk, changelog, input_log, start_at_end)
    if committed.metadata is None:
        if changelog.high > 0 or disk is not None:
            return Halt(
                f"the committed offset {committed.next_offset} was not written by this worker, and state exists"
            )
        return RestorePlan(0, 0, committed.next_offset, -1)
    target = committed.metadata.changelog_next_offset
    if target > changelog.high:
        return Halt(
            f"the changelog ends at offset {changelog.high}, the committed state needs {target}: "
            "the broker lost data, or the topic was re-created",
            "restore the changelog topic, or " + RESET_HINT,
        )
    if not input_log.low <= committed.next_offset <= input_log.high:
        return Halt(
            f"the committed offset {committed.next_offset} is not in the input, which holds {input_log.low} to "
            f"{input_log.high}: the topic was re-created, or samples were deleted before they were read"
        )
    start, wipe = _disk_start(disk, committed, target, now_ms, tombstone_retention_ms)
    return RestorePlan(start, target, committed.next_offset, committed.metadata.watermark_ms, wipe)


def _without_commit(disk: Disk | None, changelog: Log, input_log: Log, start_at_end: bool) -> RestorePlan | Halt:
    if disk is not None and disk.input_next_offset > 0:
        return Halt(f"the group has no committed offset, but local state of input offset {disk.input_next_offset}")
    del changelog  # Records without a commit were never part of a committed transaction, or the group is new.
    return RestorePlan(0, 0, input_log.high if start_at_end else input_log.low, -1)


def _disk_start(
    disk: Disk | None, committed: Committed, target: int, now_ms: int, tombstone_retention_ms: int
) -> tuple[int, str]:
    """From which changelog offset to read, and why the disk cannot be kept."""
    if disk is None:
        return 0, ""
    if disk.changelog_next_offset > target or disk.input_next_offset > committed.next_offset:
        return 0, "ahead of the committed state"
    if disk.written_at_ms >= 0 and now_ms - disk.written_at_ms > tombstone_retention_ms // 2:
        # Tombstones may be gone from the changelog: a deleted stream would come back to life.
        return 0, "older than half of the changelog's delete.retention.ms"
    return disk.changelog_next_offset, ""


def torn_row(last_offset: int, input_next_offset: int) -> bool:
    """Whether a restored row saw input at or beyond the committed offset, which a whole transaction cannot give."""
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
