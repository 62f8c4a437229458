"""From assigned to running with a changelog: plan, read, write, run; partition by partition."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.adapters.kafka_changelog import ChangelogBatch, KafkaChangelogReader
from worker.adapters.kafka_consumer import KafkaConsumer
from worker.core.commit_metadata import parse_metadata
from worker.core.partition import PartitionEvent
from worker.core.restore import (
    RESET_HINT,
    Committed,
    Disk,
    Halt,
    HaltKind,
    InputTopic,
    Log,
    RestorePlan,
    RestoreProgress,
)
from worker.errors import (
    ChangelogTooShort,
    InputChanged,
    Retriable,
    RowCorrupted,
    StateTorn,
    StoreCorrupted,
    StoreOfAnotherTopic,
)
from worker.metrics import Metrics
from worker.opening import OffsetBounds, OpenStore
from worker.partitions import OwnedPartition
from worker.ports import Clock, Store
from worker.restore_rules import RestoredRows, RestoreRule, RestoreTask

log = logging.getLogger(__name__)

STEP_SECONDS = 0.2
"""Longest piece of restore work in one turn of the loop: partitions that run wait for no more than this."""
STABLE_SECONDS_MAX = 1.0
"""How long to wait for a stable committed offset in one turn; an open transaction of the former owner delays it."""
LOG_SECONDS = 5.0
STILL_SECONDS = 3.0
"""Without a step forward for so long something holds a restore back; the next log line says so."""
_HALTS = {
    HaltKind.TORN: StateTorn,
    HaltKind.INPUT_CHANGED: InputChanged,
    HaltKind.CHANGELOG_TOO_SHORT: ChangelogTooShort,
}


def _halted(index: int, halt: Halt) -> StateTorn:
    return _HALTS[halt.kind](f"partition {index}: {halt.reason}", halt.hint)


@dataclass(slots=True)
class RestoreFiles:
    """What restoring does to the disk: open (raises StoreCorrupted), wipe, set aside."""

    open: OpenStore
    wipe: Callable[[int], None]
    set_aside: Callable[[int], None]


@dataclass(slots=True)
class _Restore:
    partition: OwnedPartition
    plan: RestorePlan
    rows: RestoredRows
    progress: RestoreProgress
    logged: float
    moved: float
    """When its position last changed."""


@dataclass(slots=True)
class _Asking:
    """Since when a partition waits for a stable answer, and when that was logged."""

    since: float
    logged: float


class ChangelogOpener:
    """Restores each assigned partition from the changelog, by the rule of the guarantee."""

    def __init__(
        self,
        *,
        rule: RestoreRule,
        files: RestoreFiles,
        consumer: KafkaConsumer,
        reader: KafkaChangelogReader,
        input_bounds: OffsetBounds,
        changelog_bounds: OffsetBounds,
        start: str,
        tombstone_retention_ms: int,
        input_topic: InputTopic,
        prepare: Callable[[OwnedPartition], None],
        supersede: Callable[[OwnedPartition, Sequence[bytes]], None],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._rule = rule
        self._files = files
        self._consumer = consumer
        self._reader = reader
        self._input_bounds = input_bounds
        self._changelog_bounds = changelog_bounds
        self._start = start
        self._tombstone_retention_ms = tombstone_retention_ms
        self._input_topic = input_topic
        self._prepare = prepare
        self._supersede = supersede
        self._metrics = metrics
        self._clock = clock
        self._waiting: list[OwnedPartition] = []
        self._restoring: dict[int, _Restore] = {}
        self._set_aside: set[int] = set()
        self._asking: dict[int, _Asking] = {}

    def begin(self, partitions: Sequence[OwnedPartition]) -> None:
        """Raises InputChanged for partitions that the input did not have when the worker started."""
        new = [partition.index for partition in partitions if partition.index >= self._input_topic.partitions]
        if new:
            raise InputChanged(
                f"the input has new partitions {new}: streams moved between partitions",
                "stop all workers and " + RESET_HINT,
            )
        self._waiting.extend(partitions)

    def busy(self) -> bool:
        return bool(self._waiting or self._restoring)

    def forget(self, partition: OwnedPartition) -> None:
        if partition in self._waiting:
            self._waiting.remove(partition)
        self._stop_reading(partition.index)
        self._set_aside.discard(partition.index)
        self._asking.pop(partition.index, None)

    def progress(self) -> list[OwnedPartition]:
        """Raises StateTorn where disk, offsets and changelog disagree, StateFromAnotherModel, UserErrors of Kafka."""
        ready: list[OwnedPartition] = []
        for partition in list(self._waiting):
            if self._begun(partition):
                self._waiting.remove(partition)
        deadline = self._clock.monotonic() + STEP_SECONDS
        while self._restoring and self._clock.monotonic() < deadline:
            for index, batch in self._reader.read(STEP_SECONDS / 4).items():
                if index in self._restoring:
                    self._applied(self._restoring[index], batch)
            ready.extend(self._finished())
        ready.extend(self._finished())
        self._report()
        return ready

    def _stop_reading(self, index: int) -> None:
        restore = self._restoring.pop(index, None)
        # A store that lacks nothing was never read for.
        if restore is not None and restore.plan.start < restore.plan.target:
            self._reader.end(index)

    # ---- one partition

    def _begun(self, partition: OwnedPartition) -> bool:
        """Plan and start to read; False while the brokers do not give a stable answer."""
        index = partition.index
        try:
            found = self._consumer.committed_with_metadata([index], STABLE_SECONDS_MAX)[index]
            # After the committed offset: an end taken before may be too low for it.
            changelog, input_log = Log(*self._changelog_bounds(index)), Log(*self._input_bounds(index))
        except Retriable as error:
            self._report_waiting(index, error)
            return False
        self._asking.pop(index, None)
        committed = None if found is None else Committed(found[0], parse_metadata(found[1]))
        store = self._opened(partition, committed)
        plan = self._planned(index, committed, store, changelog, input_log)
        if plan.wipe:
            log.warning("partition %d: the local store is %s, restoring from nothing", partition.index, plan.wipe)
            self._metrics.store_wiped(plan.wipe)
            store.close()
            self._files.wipe(partition.index)
            store = self._files.open(partition.index)
        partition.store = store
        partition.machine.apply(PartitionEvent.STORE_OPENED)
        now = self._clock.monotonic()
        rows = self._rule.rows(RestoreTask(partition.index, plan, store, committed, input_log))
        self._restoring[partition.index] = _Restore(
            partition, plan, rows, RestoreProgress(plan.start, plan.target, plan.start, now), now, now
        )
        if plan.start < plan.target:
            self._reader.begin(partition.index, max(plan.start, changelog.low))
        return True

    def _opened(self, partition: OwnedPartition, committed: Committed | None) -> Store:
        try:
            return self._files.open(partition.index)
        except StoreCorrupted as error:
            self._put_aside(partition, error)
        except StoreOfAnotherTopic:
            if committed is None or not self._input_topic.is_of(committed.metadata):
                raise
            reason = "of another topic than the one that is committed to"
            log.warning("partition %d: the local store is %s, restoring from nothing", partition.index, reason)
            self._metrics.store_wiped(reason)
            self._files.wipe(partition.index)
        return self._files.open(partition.index)

    def _put_aside(self, partition: OwnedPartition, error: StoreCorrupted | RowCorrupted) -> None:
        """Move a damaged store away, never repair it; a second one in the same assignment is not the disk's fault."""
        if partition.index in self._set_aside:
            raise error
        self._set_aside.add(partition.index)
        partition.machine.apply(PartitionEvent.STORE_CORRUPTED)
        self._metrics.store_corrupted()
        log.error("partition %d: the store is damaged and set aside: %s", partition.index, error)
        if partition.store is not None:
            partition.store.close()
            partition.store = None
        self._files.set_aside(partition.index)

    def _begin_again(self, restore: _Restore, error: StoreCorrupted | RowCorrupted) -> None:
        """The store turned out to be damaged while it was restored: plan anew with an empty one."""
        partition = restore.partition
        self._stop_reading(partition.index)
        self._put_aside(partition, error)
        self._waiting.append(partition)

    def _planned(
        self, index: int, committed: Committed | None, store: Store, changelog: Log, input_log: Log
    ) -> RestorePlan:
        position = store.position
        disk = None
        if position is not None:
            disk = Disk(
                position.input_next_offset, position.changelog_next_offset, store.written_at_ms, store.is_empty()
            )
        plan = self._rule.plan(
            disk=disk,
            committed=committed,
            changelog=changelog,
            input_log=input_log,
            start_at_end=self._start == "latest",
            now_ms=self._clock.now_ms(),
            tombstone_retention_ms=self._tombstone_retention_ms,
            input_topic=self._input_topic,
        )
        if isinstance(plan, Halt):
            store.close()
            raise _halted(index, plan)
        return plan

    def _applied(self, restore: _Restore, batch: ChangelogBatch) -> None:
        try:
            self._apply(restore, batch)
        except StoreCorrupted as error:
            self._begin_again(restore, error)

    def _apply(self, restore: _Restore, batch: ChangelogBatch) -> None:
        position = min(max(batch.position, restore.progress.position), restore.plan.target)
        written = restore.rows.add(batch, position)
        if position != restore.progress.position:
            restore.moved = self._clock.monotonic()
        restore.progress.position = position
        restore.partition.machine.apply(PartitionEvent.RESTORE_PROGRESSED)
        self._metrics.restored(written)

    def _finished(self) -> list[OwnedPartition]:
        ready: list[OwnedPartition] = []
        for restore in [restore for restore in self._restoring.values() if restore.progress.done]:
            try:
                self._complete(restore)
            except (StoreCorrupted, RowCorrupted) as error:
                self._begin_again(restore, error)
            else:
                ready.append(restore.partition)
        return ready

    def _complete(self, restore: _Restore) -> None:
        plan, partition = restore.plan, restore.partition
        self._stop_reading(partition.index)
        assert partition.store is not None
        position = restore.rows.end()
        if isinstance(position, Halt):
            raise _halted(partition.index, position)
        if keys := restore.rows.superseded_keys():
            log.info("partition %d: %d rows of an unfinished commit are written anew", partition.index, len(keys))
            self._supersede(partition, keys)
        if partition.store.position != position:
            partition.store.write((), position)
        partition.begin_at(position)
        partition.changelog_first_offset = plan.changelog_first_offset
        partition.group_is_behind = restore.rows.group_is_behind()
        # Before it runs: what a partition that does not run holds in the table is nobody's to give back.
        self._prepare(partition)
        partition.machine.apply(PartitionEvent.RESTORE_COMPLETED)
        seconds = self._clock.monotonic() - restore.progress.began
        log.info("partition %d restored to changelog offset %d in %.1f s", partition.index, plan.target, seconds)

    def _report_waiting(self, index: int, error: Retriable) -> None:
        now = self._clock.monotonic()
        asking = self._asking.setdefault(index, _Asking(now, now))
        if now - asking.logged >= LOG_SECONDS:
            asking.logged = now
            log.warning(
                "partition %d has waited %.0f s for a stable committed offset, which an open transaction of its former "
                "owner or a broker delays: %s",
                index,
                now - asking.since,
                error,
            )

    def _report(self) -> None:
        now = self._clock.monotonic()
        self._metrics.restoring({index: each.progress.remaining for index, each in self._restoring.items()})
        for index, restore in self._restoring.items():
            if now - restore.logged < LOG_SECONDS:
                continue
            progress = restore.progress
            if now - restore.moved >= STILL_SECONDS:
                log.warning(
                    "partition %d restores: nothing is stable from changelog offset %d on, %d offsets before the "
                    "target; another producer's transaction is open, or the broker does not answer",
                    index,
                    progress.position,
                    progress.remaining,
                )
            else:
                left = progress.seconds_left(now)
                estimate = "no estimate yet" if left is None else f"about {left:.0f} s"
                log.info("partition %d restores: %d changelog offsets left, %s", index, progress.remaining, estimate)
            restore.logged = now
