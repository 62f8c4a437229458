"""The part of a simulated worker that brings assigned partitions to running; decides by `worker.core.restore`."""

from __future__ import annotations

from collections import Counter

from tests.sim.client import Steps
from tests.sim.disk import Position
from tests.sim.kafka import Entry, Kafka, Reply
from tests.sim.owned import Owned
from worker.core.commit_metadata import parse_metadata
from worker.core.partition import PartitionEvent, PartitionState
from worker.core.restore import Committed, Disk, Halt, Log, RestorePlan, RestoreProgress, plan_restore
from worker.errors import StateTorn

RESTORE_OFFSETS_MAX = 6


class RestoringWorker:
    """Restores a piece of each partition at a time. Subclasses get single decisions wrong."""

    kafka: Kafka
    counts: Counter[str]
    owned: dict[int, Owned]

    def partition_event(self, partition: Owned, event: PartitionEvent) -> None:
        self.counts[f"partition: {partition.machine.state.name} {event.name}"] += 1
        partition.machine.apply(event)

    def restore(self) -> Steps[None]:
        """One piece of work for each partition that does not run yet."""
        for partition in list(self.owned.values()):
            if partition.machine.state is PartitionState.ASSIGNED:
                yield from self.open(partition)
            elif partition.machine.state is PartitionState.RESTORING:
                yield
                self.read(partition)

    def open(self, partition: Owned) -> Steps[None]:
        reply = self.committed(partition.index)
        if isinstance(reply, Reply):
            return
        yield
        if self.damaged(partition):
            self.set_aside(partition)
        plan = self.plan(partition, None if reply is None else Committed(reply[0], parse_metadata(reply[1])))
        if isinstance(plan, Halt):
            raise StateTorn(plan.reason)
        if plan.wipe:
            self.counts["stores wiped"] += 1
            partition.disk.wipe()
        partition.plan = plan
        partition.progress = RestoreProgress(plan.start, plan.target, plan.start, self.kafka.now)
        self.partition_event(partition, PartitionEvent.STORE_OPENED)

    def committed(self, index: int) -> tuple[int, str] | Reply | None:
        return self.kafka.committed(index)

    def plan(self, partition: Owned, committed: Committed | None) -> RestorePlan | Halt:
        position, disk = partition.disk.position, None
        if position is not None:
            disk = Disk(*position, partition.disk.written_at, empty=not partition.disk.rows())
        return plan_restore(
            disk=disk,
            committed=committed,
            changelog=Log(0, self.kafka.logs["changelog", partition.index].high_watermark),
            input_log=Log(self.kafka.input_low, len(self.kafka.input[partition.index])),
            start_at_end=False,
            now_ms=self.kafka.now,
            tombstone_retention_ms=self.tombstone_retention(),
        )

    def tombstone_retention(self) -> int:
        return self.kafka.tombstone_retention

    def read(self, partition: Owned) -> None:
        """The next rows of the changelog; none while a transaction is open below the target."""
        plan, progress, disk = partition.plan, partition.progress, partition.disk
        assert plan is not None
        assert progress is not None
        if self.damaged(partition):
            self.set_aside(partition)
            return
        end = min(progress.position + RESTORE_OFFSETS_MAX, plan.target)
        entries, position = self.changelog(partition.index, progress.position, end)
        for entry in entries:
            if entry.value is not None and plan.row_is_torn(entry.value.last_offset):
                raise StateTorn(f"a restored row saw input offset {entry.value.last_offset}")
        if position > progress.position:
            held = disk.position.input_next_offset if disk.position else 0
            disk.write({str(e.key): e.value for e in entries}, Position(held, position), self.kafka.now)
            progress.position = position
            self.partition_event(partition, PartitionEvent.RESTORE_PROGRESSED)
        if self.restore_target_reached(partition):
            position_ = Position(plan.input_next_offset, plan.target)
            disk.write({}, position_, self.kafka.now)
            partition.begin_at(position_, plan.watermark_ms)
            self.partition_event(partition, PartitionEvent.RESTORE_COMPLETED)

    def restore_target_reached(self, partition: Owned) -> bool:
        return partition.progress is not None and partition.progress.done

    def changelog(self, index: int, start: int, end: int) -> tuple[list[Entry], int]:
        """Committed rows and the offset up to which there are no more."""
        log = self.kafka.logs["changelog", index]
        return log.read(start, end), max(start, min(end, log.last_stable_offset))

    def damaged(self, partition: Owned) -> bool:
        return partition.disk.corrupted

    def set_aside(self, partition: Owned) -> None:
        self.partition_event(partition, PartitionEvent.STORE_CORRUPTED)
        partition.disk.wipe()
