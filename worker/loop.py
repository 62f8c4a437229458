"""Poll, process, commit: the only place where the parts meet.

One thread owns consumer, producer, table and stores. Rebalance callbacks run inside `Consumer.poll_batch` and
`Consumer.close`, between two batches, never within one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from worker.core.codec import OutputEncoder
from worker.core.commit_policy import CommitPolicy
from worker.core.forecast_drift import ForecastDrift
from worker.core.restore import RESET_HINT
from worker.core.slots import StreamTable
from worker.core.types import DeadLetter, RecordBatch
from worker.delivery import BadRecordBreaker, Delivery
from worker.errors import PositionOutOfRange, StateTorn, TransactionAborted
from worker.held_back import HeldBackInput
from worker.metrics import Metrics
from worker.opening import OffsetBounds, Opener
from worker.partitions import OwnedPartition, Ownership
from worker.ports import Clock, Consumer, Hook
from worker.processing import Processed, Processor, Stepping
from worker.stages import Stages
from worker.status import StatusBoard

log = logging.getLogger(__name__)

POLL_SECONDS_MAX = 0.2
"""How long a poll may wait when nothing is uncommitted; bounds how late signals and HTTP questions are answered."""

REPORT_SECONDS = 1.0
"""How often gauges are brought up to date; counting open streams reads the whole table."""


@dataclass(slots=True)
class LoopSettings:
    """`batch_records`: the most records of one poll. `touched_max`: streams changed before an early commit."""

    batch_records: int
    touched_max: int


class Worker:
    """A member of the consumer group. `run` returns after `stop`, with everything committed and closed."""

    def __init__(
        self,
        *,
        settings: LoopSettings,
        consumer: Consumer,
        processor: Processor,
        encoder: OutputEncoder,
        delivery: Delivery,
        opener: Opener,
        ownership: Ownership,
        table: StreamTable,
        policy: CommitPolicy,
        breaker: BadRecordBreaker,
        input_bounds: OffsetBounds,
        metrics: Metrics,
        status: StatusBoard,
        stages: Stages,
        clock: Clock,
        hook: Hook,
    ) -> None:
        self._settings = settings
        self._consumer = consumer
        self._processor = processor
        self._encoder = encoder
        self._delivery = delivery
        self._opener = opener
        self._ownership = ownership
        self._table = table
        self._policy = policy
        self._breaker = breaker
        self._input_bounds = input_bounds
        self._metrics = metrics
        self._status = status
        self._clock = clock
        self._hook = hook
        self._stages = stages
        self._held_back = HeldBackInput(metrics)
        self._drift = ForecastDrift()
        self._dead_letters: list[DeadLetter] = []
        self._stepping: Stepping | None = None
        self._next_report = 0.0
        self._stopping = False
        self._failed = False

    def stop(self) -> None:
        """Finish the batch, commit, leave. May be called from a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Blocks until `stop`. Raises what cannot be mended while running; nothing uncommitted is stored then."""
        try:
            while not self._stopping:
                self._turn()
            self._commit()
        except BaseException:
            self._failed = True
            self._forget_batch()
            self._roll_back([partition for partition in self._ownership if partition.running])
            raise
        finally:
            self._consumer.close()
            self._delivery.close()
            self._let_go([partition.index for partition in self._ownership])

    # ---- rebalance callbacks, called by the consumer

    def on_assigned(self, partitions: Sequence[int]) -> None:
        """Take note only: stores are opened and restored outside the callback."""
        self._metrics.rebalance("assigned")
        self._opener.begin([self._ownership.assign(index) for index in partitions])
        log.info("assigned partitions %s", sorted(partitions))

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Commit everything, then close what is gone."""
        self._metrics.rebalance("revoked")
        if not self._failed:
            self._commit()
        self._let_go(partitions)
        log.info("revoked partitions %s", sorted(partitions))

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Another member may own them already: drop, never commit."""
        self._metrics.rebalance("lost")
        if not self._failed:
            self._finish_batch()
        owned = [self._ownership[index] for index in partitions if index in self._ownership]
        lost = [partition for partition in owned if partition.running]
        everything = self._delivery.abandon(lost)
        self._roll_back([each for each in self._ownership if each.running] if everything else lost)
        self._let_go(partitions)
        log.warning("lost partitions %s", sorted(partitions))

    def _let_go(self, partitions: Sequence[int]) -> None:
        for index in partitions:
            if index not in self._ownership:
                continue
            partition = self._ownership[index]
            self._opener.forget(partition)
            if partition.running:
                self._table.drop_partition(index)
            partition.close()
            self._ownership.drop(index)

    # ---- one turn

    def _turn(self) -> None:
        """A batch is polled while the one before is stepped; nothing is in flight when states are looked at."""
        self._start_ready_partitions()
        self._rewind()
        wait = 0.0 if self._stepping else self._policy.seconds_until_due(self._clock.monotonic(), POLL_SECONDS_MAX)
        polled = self._polled(wait)
        self._stages.mark("idle" if polled is None and self._stepping is None else "poll")
        self._finish_batch()
        if self._policy.should_commit(self._clock.monotonic()) or (
            self._table.touched_count >= self._settings.touched_max
        ):
            self._commit()
        self._report()
        if polled is not None:
            self._hook("polled")
            self._stepping = self._processor.begin(polled, self._stages.mark)
            if self._stepping is not None:
                self._policy.processed(self._clock.monotonic(), len(self._stepping.batch))

    def _polled(self, wait: float) -> RecordBatch | None:
        try:
            return self._consumer.poll_batch(self._settings.batch_records, wait)
        except PositionOutOfRange as error:
            self._check_position(self._ownership[error.partition])
        return None

    def _check_position(self, partition: OwnedPartition) -> None:
        """A new leader may not know the log's end for a moment; a position that is gone for good stops the worker."""
        low, high = self._input_bounds(partition.index)
        if not low <= partition.next_offset <= high:
            raise StateTorn(
                f"partition {partition.index}: offset {partition.next_offset} is no longer in the input, which holds "
                f"{low} to {high}: samples were deleted before they were read, or the topic was re-created",
                RESET_HINT,
            )
        log.warning("partition %d: begins again at offset %d", partition.index, partition.next_offset)
        self._consumer.start_at({partition.index: partition.next_offset})

    def _start_ready_partitions(self) -> None:
        if self._opener.busy():
            # Taking over a partition may commit it alone: nothing of the others may be in that commit.
            self._commit()
        ready = self._opener.progress()
        if ready:
            self._consumer.start_at({partition.index: partition.next_offset for partition in ready})
            for partition in ready:
                log.info("partition %d runs from offset %d", partition.index, partition.next_offset)
            if any(partition.changed for partition in ready):
                self._policy.owed(self._clock.monotonic())

    def _finish_batch(self) -> None:
        """Send the outputs of the batch that is being stepped, where there is one."""
        if self._stepping is None:
            return
        stepping, self._stepping = self._stepping, None
        done = self._processor.finish(stepping, self._stages.mark)
        self._hook("stepped")
        values = self._encoder.encode(done.predictions) if len(done.predictions) else []
        self._stages.mark("encode")
        self._breaker.add(done.records, done.dead_letters)
        self._count(stepping.polled, done)
        if values and not self._undone_unless(lambda: self._delivery.send(done.predictions, values)):
            return
        self._stages.mark("produce")
        self._hook("produced")
        self._dead_letters.extend(done.dead_letters)

    def _forget_batch(self) -> None:
        if self._stepping is not None:
            self._stepping.wait()
            self._stepping = None

    def _count(self, polled: RecordBatch, done: Processed) -> None:
        partitions, records = np.unique(polled.partitions, return_counts=True)
        by_partition = dict(zip(partitions.tolist(), records.tolist(), strict=True))
        age_seconds = (self._clock.now_ms() - int(polled.event_times[-1])) / 1000
        self._metrics.batch(by_partition, len(done.predictions), age_seconds)
        self._metrics.sequences(done.counts, done.ended, done.not_finite)
        if done.forecasts is not None:
            self._drift.add(*done.forecasts)
        self._status.predicted(done.records, done.predictions)

    def _report(self) -> None:
        """Answer questions every turn; refresh gauges and the page's snapshot from time to time."""
        self._status.turn(self._ownership, self._table)
        now = self._clock.monotonic()
        if now < self._next_report:
            return
        self._next_report = now + REPORT_SECONDS
        self._metrics.partitions(
            {partition.index: partition.machine.state.value for partition in self._ownership},
            {partition.index: partition.watermark_ms for partition in self._ownership},
            self._consumer.consumer_lag(),
        )
        self._metrics.forecasts_drift(self._drift.mean, self._drift.slope)
        self._held_back.look(self._consumer.held_back(), now)
        self._metrics.older_models(self._table.older_rows())
        self._metrics.streams(
            open_streams=self._table.open_streams(),
            in_memory=self._table.streams(),
            evicted=self._table.evicted_total,
            store_reads=self._table.store_reads_total,
            uncommitted=self._table.touched_count,
        )

    def _undone_unless(self, deliver: Callable[[], None]) -> bool:
        """Whether a call of the delivery succeeded; after an abort everything goes back to the last commit."""
        try:
            deliver()
        except TransactionAborted as error:
            log.warning("nothing since the last commit counts: %s", error)
            self._metrics.aborted()
            self._roll_back([partition for partition in self._ownership if partition.running])
            return False
        return True

    def _roll_back(self, partitions: Sequence[OwnedPartition]) -> None:
        """States, positions and dead letters of these partitions as of the last commit."""
        indices = {partition.index for partition in partitions}
        slots = self._table.rollback(sorted(indices))
        for partition in partitions:
            partition.rollback()
        for slot in slots.tolist():
            owner = self._table.owner_of(slot)
            idle = self._ownership[owner].idle if owner in self._ownership else None
            if idle is not None and self._table.rows["step"][slot] > 0:
                idle.watch(self._table.key_of(slot), int(self._table.rows["event_time"][slot]))
        self._dead_letters = [letter for letter in self._dead_letters if letter.partition not in indices]
        self._policy.did_commit(self._clock.monotonic())

    def _rewind(self) -> None:
        """Send the consumer back for partitions that were rolled back; until then their records are refused."""
        rewinding = [partition for partition in self._ownership if partition.running and partition.rewinding]
        if rewinding:
            self._consumer.start_at({partition.index: partition.next_offset for partition in rewinding})
            for partition in rewinding:
                partition.rewound()

    def _commit(self) -> None:
        self._finish_batch()
        changed: list[OwnedPartition] = list(self._ownership.changed())
        if not changed:
            return
        self._breaker.check(self._dead_letters)
        started = self._clock.monotonic()
        if not self._undone_unless(lambda: self._delivery.commit(changed, self._dead_letters)):
            return
        self._metrics.committed(self._clock.monotonic() - started, self._clock.now_ms() / 1000, self._dead_letters)
        self._dead_letters = []
        self._policy.did_commit(self._clock.monotonic())
        self._stages.mark("commit")
