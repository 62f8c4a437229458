"""One polled batch through decode, route, step and publish; nothing leaves the process here.

It goes in two halves, so that the next batch can be polled while an engine that needs no interpreter steps this one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from worker.core.codec import InputDecoder
from worker.core.idle import IdleIndex
from worker.core.publishing import Emission, publish
from worker.core.routed import Routed
from worker.core.routing import route
from worker.core.sequence import SequenceRules
from worker.core.slots import StreamTable
from worker.core.stepping import ServedModel, step_routed
from worker.core.types import (
    DeadLetter,
    DecodedBatch,
    EndedBy,
    Float32Array,
    Int32Array,
    Int64Array,
    Kind,
    PredictionBatch,
    RecordBatch,
    Rejection,
)
from worker.errors import RowCorrupted, StateTorn
from worker.partitions import Ownership
from worker.ports import Clock

Mark = Callable[[str], None]
"""Called with the name of the stage that just ended."""

BACKGROUND_SAMPLES_MIN = 256
"""Fewer samples are stepped sooner than another thread would begin (about 50 µs)."""


@dataclass(slots=True)
class Stepping:
    """A routed batch whose samples are being stepped; until `finish` or `wait` nobody else may touch their rows."""

    polled: RecordBatch
    batch: RecordBatch
    """What of it was admitted."""
    decoded: DecodedBatch
    routed: Routed
    logits: Future[Float32Array]

    def wait(self) -> None:
        """Until the engine does not touch the rows any more, whatever came of it."""
        wait([self.logits])


@dataclass(slots=True)
class Processed:
    """What a batch gave; the table and the positions have already moved on."""

    records: int
    predictions: PredictionBatch
    dead_letters: list[DeadLetter]
    ended: Counter[EndedBy]
    counts: Counter[str]
    not_finite: int
    forecasts: tuple[Float32Array, Float32Array] | None
    """See `Published.forecasts`."""


class Processor:
    """`models`: the served one first, then those whose open sequences are finished.

    Owns no partition and no client: reads and changes the table, the ownership's positions and the stores' rows.
    """

    def __init__(
        self,
        *,
        decoder: InputDecoder,
        models: Sequence[ServedModel],
        table: StreamTable,
        ownership: Ownership,
        rules: SequenceRules,
        emission: Emission,
        clock: Clock,
        background_samples_min: int = BACKGROUND_SAMPLES_MIN,
    ) -> None:
        self._decoder = decoder
        self._models = models
        self._readouts = [model.readout for model in models]
        self._table = table
        self._ownership = ownership
        self._rules = rules
        self._emission = emission
        self._clock = clock
        self._releases_lock = all(model.stepper.releases_lock for model in models)
        self._background_samples_min = background_samples_min
        self._thread = ThreadPoolExecutor(1, "stepping")

    def begin(self, polled: RecordBatch, mark: Mark) -> Stepping | None:
        """Route a polled batch and begin to step it; None when no record of it was admitted.

        Raises StoreCorrupted or StateTorn when a stored row cannot be read.
        """
        batch = self._admitted(polled)
        if not len(batch):
            return None
        decoded = self._decoder.decode(batch, self._clock.now_ms())
        mark("decode")
        routed = self._routed(batch, decoded)
        self._advance_positions(batch)
        mark("route")
        everything = len(routed.stepped) == len(batch)
        features = decoded.features if everything else decoded.features[routed.stepped]
        return Stepping(polled, batch, decoded, routed, self._stepped(routed, features))

    def finish(self, stepping: Stepping, mark: Mark) -> Processed:
        """What the batch gave; batches are finished in the order in which they were begun, one before the next."""
        batch, routed = stepping.batch, stepping.routed
        logits = stepping.logits.result()
        published = publish(batch, routed, logits, self._readouts, self._table, self._emission)
        mark("step")
        reasons = Counter(routed.row_ended_by[routed.row_ended_by > 0].tolist())
        return Processed(
            records=len(batch),
            predictions=published.predictions,
            dead_letters=_dead_letters(batch, stepping.decoded, routed),
            ended=Counter({EndedBy(reason): count for reason, count in reasons.items()}),
            counts=routed.counts,
            not_finite=published.not_finite,
            forecasts=published.forecasts,
        )

    def _stepped(self, routed: Routed, features: Float32Array) -> Future[Float32Array]:
        if self._releases_lock and len(routed.stepped) >= self._background_samples_min:
            return self._thread.submit(step_routed, self._models, routed, features, self._table)
        done: Future[Float32Array] = Future()
        done.set_result(step_routed(self._models, routed, features, self._table))
        return done

    def _admitted(self, batch: RecordBatch) -> RecordBatch:
        """Only records of running partitions that are not behind what was processed."""
        keep = np.ones(len(batch), np.bool_)
        for index in np.unique(batch.partitions).tolist():
            mine = batch.partitions == index
            owned = self._ownership.get(index)
            if owned is None or not owned.running or owned.rewinding:
                keep[mine] = False
            else:
                keep[mine] = batch.offsets[mine] >= owned.next_offset
        return batch if keep.all() else _taken(batch, np.flatnonzero(keep))

    def _routed(self, batch: RecordBatch, decoded: DecodedBatch) -> Routed:
        slots = self._slots(batch, decoded)
        watermarks = {index: self._ownership[index].watermark_ms for index in np.unique(batch.partitions).tolist()}
        idle = None
        if self._rules.idle_timeout_ms:
            idle = {index: self._idle_index(index) for index in watermarks}
            self._bring_in_due_streams(batch, decoded, idle)
        routed = route(batch, decoded, slots, self._table, self._rules, watermarks, idle)
        for index, watermark in watermarks.items():
            self._ownership[index].watermark_ms = watermark
        return routed

    def _slots(self, batch: RecordBatch, decoded: DecodedBatch) -> Int64Array:
        """Each record's slot, touched; -1 where the key cannot be used."""
        if not decoded.rejections:
            slots = self._resolved(batch.partitions, batch.keys)  # type: ignore[arg-type]  # no key was rejected
        else:
            slots = np.full(len(batch), -1, np.int64)
            keyed = [i for i, key in enumerate(batch.keys) if key]
            keys = [key for key in batch.keys if key]
            slots[keyed] = self._resolved(batch.partitions[keyed], keys)
        self._table.touch(slots[slots >= 0])
        return slots

    def _idle_index(self, partition: int) -> IdleIndex:
        idle = self._ownership[partition].idle
        assert idle is not None, "a running partition has an idle index where a timeout is set"
        return idle

    def _bring_in_due_streams(self, batch: RecordBatch, decoded: DecodedBatch, idle: dict[int, IdleIndex]) -> None:
        usable = decoded.kinds != Kind.REJECTED
        for index, deadlines in idle.items():
            times = batch.event_times[usable & (batch.partitions == index)]
            keys = deadlines.due_keys(int(times.max())) if len(times) else []
            if keys:
                self._table.touch(self._resolved(np.full(len(keys), index, np.int32), keys))

    def _resolved(self, partitions: Int32Array, keys: list[bytes]) -> Int64Array:
        try:
            return self._table.resolve(partitions, keys, self._read_rows)
        except RowCorrupted as error:
            raise StateTorn(
                f"a stored row of partitions {sorted(set(partitions.tolist()))} is damaged: {error}",
                "move the partition's store away; without a changelog its open sequences are lost",
            ) from error

    def _read_rows(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        store = self._ownership[partition].store
        assert store is not None, "a running partition has a store"
        return store.get_many(keys)

    def _advance_positions(self, batch: RecordBatch) -> None:
        for index in np.unique(batch.partitions).tolist():
            self._ownership[index].next_offset = int(batch.offsets[batch.partitions == index].max()) + 1


def _taken(batch: RecordBatch, records: Int64Array) -> RecordBatch:
    wanted = records.tolist()
    return RecordBatch(
        partitions=batch.partitions[records],
        offsets=batch.offsets[records],
        event_times=batch.event_times[records],
        keys=[batch.keys[i] for i in wanted],
        values=[batch.values[i] for i in wanted],
        headers=None if batch.headers is None else [batch.headers[i] for i in wanted],
    )


def _dead_letters(batch: RecordBatch, decoded: DecodedBatch, routed: Routed) -> list[DeadLetter]:
    reasons = dict(decoded.rejections)
    for record in routed.rejected_gaps:
        given = decoded.steps[record] if decoded.steps is not None else 0
        reasons[record] = Rejection("gap", f"step {given} skips ahead and sequence.on_gap is 'reject'")
    return [
        DeadLetter(
            partition=int(batch.partitions[record]),
            offset=int(batch.offsets[record]),
            event_time=int(batch.event_times[record]),
            key=batch.keys[record],
            value=batch.values[record],
            headers=batch.headers[record] if batch.headers is not None else None,
            rejection=reasons[record],
        )
        for record in sorted(reasons)
    ]
