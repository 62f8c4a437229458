"""What the rows that a restore reads mean: by the committed target, or by progress records.

Either way the store is written as the changelog is read, and its position always tells what it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from worker.adapters.kafka_changelog import ChangelogBatch
from worker.core.restore import Committed, Halt, Log, RestorePlan, plan_restore
from worker.core.restore_by_progress import (
    ProgressGroups,
    RestoredGroup,
    misplaced_progress,
    plan_restore_by_progress,
)
from worker.core.state_row import check_row, row_last_offset
from worker.errors import RowCorrupted, StateTorn
from worker.ports import Store, StorePosition


class RestoredRows(Protocol):
    """One partition's restore: takes batches below the plan's target, in order."""

    def add(self, batch: ChangelogBatch, position: int) -> int:
        """Write what counts; `position` is the next offset to read. Returns the rows written. Raises StateTorn."""

    def superseded_keys(self) -> list[bytes]:
        """Keys whose last row in the changelog does not count and must be written anew."""

    def group_is_behind(self) -> bool:
        """Whether the group's committed offset is older than what was restored."""

    def end(self) -> StorePosition | Halt:
        """Where the partition stands once everything was added."""


@dataclass(slots=True)
class RestoreTask:
    """What a restore is about: partition, plan and store, and what it was planned from."""

    index: int
    plan: RestorePlan
    store: Store
    committed: Committed | None
    input_log: Log


class RowsByCommit:
    """Exactly once: every row below the target is committed."""

    def __init__(self, task: RestoreTask) -> None:
        self._task = task

    def add(self, batch: ChangelogBatch, position: int) -> int:
        task = self._task
        wanted = sum(1 for offset in batch.offsets if offset < task.plan.target)
        rows = batch.rows[:wanted]
        for _, row in rows:
            if row is not None:
                self._check(row)
        held = task.store.position
        task.store.write(rows, StorePosition(held.input_next_offset if held else 0, position, task.plan.watermark_ms))
        return len(rows)

    def superseded_keys(self) -> list[bytes]:
        """A transaction that did not commit is invisible."""
        return []

    def group_is_behind(self) -> bool:
        """Offset and rows were committed together."""
        return False

    def end(self) -> StorePosition | Halt:
        plan = self._task.plan
        return StorePosition(plan.input_next_offset, plan.target, plan.watermark_ms)

    def _check(self, row: bytes) -> None:
        _whole(self._task.index, row)
        if self._task.plan.row_is_torn(row_last_offset(row)):
            raise StateTorn(
                f"partition {self._task.index}: a restored row saw input offset {row_last_offset(row)}, "
                f"only {self._task.plan.rows_input_end} is committed: a transaction was torn",
                "keep all files and look at the broker's transaction log; `lstm-worker reset` begins anew",
            )


class RowsByProgress:
    """At least once: rows count when the progress record of their commit follows."""

    def __init__(self, task: RestoreTask) -> None:
        self._task = task
        held = task.store.position
        self._groups = ProgressGroups(held.input_next_offset if held else 0)

    def add(self, batch: ChangelogBatch, position: int) -> int:
        del position
        task, rows = self._task, []
        newest: RestoredGroup | None = None
        for offset, (key, row) in zip(batch.offsets, batch.rows, strict=True):
            if offset >= task.plan.target:
                break
            group = self._groups.add(offset, key, row)
            if group is not None:
                rows.extend(group.rows)
                newest = group
        for _, row in rows:
            if row is not None:
                _whole(task.index, row)
        if newest is not None:
            progress = newest.progress
            where = StorePosition(progress.input_next_offset, newest.changelog_next_offset, progress.watermark_ms)
            task.store.write(rows, where)
        return len(rows)

    def superseded_keys(self) -> list[bytes]:
        return self._groups.superseded_keys()

    def group_is_behind(self) -> bool:
        committed, held = self._task.committed, self._task.store.position
        return held is not None and (committed is None or committed.next_offset < held.input_next_offset)

    def end(self) -> StorePosition | Halt:
        task = self._task
        held = task.store.position
        found = StorePosition(task.plan.input_next_offset, task.plan.target, task.plan.watermark_ms)
        if held is not None:
            found = StorePosition(held.input_next_offset, task.plan.target, held.watermark_ms)
        committed = None if task.committed is None else task.committed.next_offset
        return misplaced_progress(found.input_next_offset, committed, task.input_log) or found


def _whole(index: int, row: bytes) -> None:
    try:
        check_row(row)
    except RowCorrupted as error:
        raise StateTorn(f"partition {index}: the changelog holds a damaged row: {error}") from error


@dataclass(frozen=True, slots=True)
class RestoreRule:
    """How a guarantee plans a restore and reads its rows."""

    plan: Callable[..., RestorePlan | Halt]
    rows: Callable[[RestoreTask], RestoredRows]


EXACTLY_ONCE = RestoreRule(plan_restore, RowsByCommit)
AT_LEAST_ONCE = RestoreRule(plan_restore_by_progress, RowsByProgress)
