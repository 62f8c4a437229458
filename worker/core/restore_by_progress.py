"""Restoring at least once: no transaction bounds the rows, progress records do.

Each commit writes its rows and then one progress record per partition. Rows count up to the last progress record; what
follows is of a commit that did not finish, and its input is read again. Such rows stay in the log, so that their keys
must be written anew before the partition runs: else a later progress record would bring them in.
"""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.restore import (
    RESET_HINT,
    Committed,
    Disk,
    Halt,
    InputTopic,
    Log,
    RestorePlan,
    beginning_gone,
    disk_start,
    foreign_commit,
    outside_input,
    too_short,
)
from worker.errors import StateTorn

PROGRESS_KEY = b""
"""The changelog key of progress records. No stream has it: records with an empty key are dead letters."""


@dataclass(frozen=True, slots=True)
class ProgressRecord:
    """Follows the rows of one commit in the changelog and says which input they belong to."""

    input_next_offset: int
    watermark_ms: int

    def encode(self) -> bytes:
        """16 bytes: two big-endian 64-bit integers."""
        return b"".join(
            number.to_bytes(8, "big", signed=True) for number in (self.input_next_offset, self.watermark_ms)
        )


def parse_progress(value: bytes | None) -> ProgressRecord | None:
    """None for a value that no worker wrote: the changelog is torn."""
    if value is None or len(value) != 16:
        return None
    found = ProgressRecord(int.from_bytes(value[:8], "big", signed=True), int.from_bytes(value[8:], "big", signed=True))
    return found if found.input_next_offset >= 0 and found.watermark_ms >= -1 else None


def plan_restore_by_progress(
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
    """As `plan_restore`: the changelog is read to its end and its last progress record decides.

    The plan's `input_next_offset` holds only when neither disk nor changelog have a progress. `rows_input_end` is not
    used.
    """
    metadata = None if committed is None else committed.metadata
    if committed is not None and metadata is None:
        return foreign_commit(disk, committed, changelog, input_log)
    if metadata is not None and input_topic is not None and (changed := input_topic.changed_since(metadata)):
        return changed
    first = 0 if metadata is None else metadata.changelog_first_offset
    if metadata is not None and metadata.changelog_next_offset > changelog.high:
        return too_short(changelog, metadata.changelog_next_offset)
    reset_since = disk is not None and disk.changelog_next_offset < first
    start, wipe = (0, "of before a reset") if reset_since else disk_start(disk, now_ms, tombstone_retention_ms)
    start = max(start, first)
    if disk is not None and not reset_since and disk.changelog_next_offset > changelog.high:
        return too_short(changelog, disk.changelog_next_offset)
    if start < changelog.high and changelog.low > start:
        return beginning_gone(changelog, start)
    begin = input_log.high if start_at_end else input_log.low
    watermark_ms = -1
    if committed is not None and metadata is not None:
        begin, watermark_ms = committed.next_offset, metadata.watermark_ms
    if disk is not None and not wipe:
        begin = disk.input_next_offset
    return RestorePlan(start, changelog.high, begin, watermark_ms, wipe, changelog_first_offset=first)


@dataclass(frozen=True, slots=True)
class RestoredGroup:
    """Rows that belong together, and the input and the changelog offset up to which they are complete."""

    rows: list[tuple[bytes, bytes | None]]
    progress: ProgressRecord
    changelog_next_offset: int


class ProgressGroups:
    """Cuts a changelog into groups of rows, each complete with its progress record.

    What follows the last progress record is never given out. A progress that goes back was written by a former owner
    that did not know yet; its rows are dropped.
    """

    def __init__(self, input_next_offset: int = 0) -> None:
        """`input_next_offset`: the progress of the disk that the rows are added to."""
        self._input_next_offset = input_next_offset
        self._rows: list[tuple[bytes, bytes | None]] = []
        self._dropped: set[bytes] = set()

    def add(self, offset: int, key: bytes, value: bytes | None) -> RestoredGroup | None:
        """The next record; a group when the record completes one. Raises StateTorn for a damaged progress record."""
        if key != PROGRESS_KEY:
            self._rows.append((key, value))
            return None
        progress = parse_progress(value)
        if progress is None:
            raise StateTorn(f"the changelog holds a damaged progress record at offset {offset}", RESET_HINT)
        rows, self._rows = self._rows, []
        if progress.input_next_offset < self._input_next_offset:
            self._dropped.update(row[0] for row in rows)
            return None
        self._input_next_offset = progress.input_next_offset
        self._dropped.difference_update(row[0] for row in rows)
        return RestoredGroup(rows, progress, offset + 1)

    def superseded_keys(self) -> list[bytes]:
        """Keys whose last row in the log does not count: to be written anew before anything else is."""
        return sorted(self._dropped | {key for key, _ in self._rows})


def misplaced_progress(progress_next_offset: int, committed_next_offset: int | None, input_log: Log) -> Halt | None:
    """Whether the restored progress can be resumed: a commit follows its progress, so it is never ahead of it."""
    if committed_next_offset is not None and committed_next_offset > progress_next_offset:
        return Halt(
            f"the committed offset {committed_next_offset} is ahead of the state, which holds input up to "
            f"{progress_next_offset}: somebody moved the offset, or the changelog lost data"
        )
    if not input_log.low <= progress_next_offset <= input_log.high:
        return outside_input(progress_next_offset, input_log)
    return None
