"""The sequence rules record by record, for the streams whose records carry controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from worker.core.idle import IdleIndex
from worker.core.routed import CARRIED, Routed
from worker.core.sequence import Effect, OpenSequence, SequenceRecord, SequenceRules, Verdict, advance, close
from worker.core.slots import StreamTable
from worker.core.state_row import STICKY, Flag
from worker.core.types import DecodedBatch, EndedBy, Int64Array, Kind, RecordBatch


@dataclass(slots=True)
class _Rows:
    """Output rows of the one-by-one path, in the order in which they arise."""

    stepped: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    models: list[int] = field(default_factory=list)
    rows: list[tuple[int, int, int, int, int, int, bool, int]] = field(default_factory=list)
    row_models: list[int] = field(default_factory=list)
    sequence_ids: list[bytes] = field(default_factory=list)

    def add(
        self, record: int, sample: int, slot: int, sequence: OpenSequence, ended_by: EndedBy, *, closing: bool
    ) -> None:
        flags = _sticky(sequence)
        row = (record, sample, slot, sequence.step, sequence.first_offset, flags, closing, int(ended_by))
        self.rows.append(row)
        self.row_models.append(sequence.model)
        self.sequence_ids.append(sequence.sequence_id)


class ControlledRouter:
    """Routes one batch; made anew for each."""

    def __init__(
        self,
        batch: RecordBatch,
        decoded: DecodedBatch,
        slots: Int64Array,
        table: StreamTable,
        rules: SequenceRules,
        watermarks: dict[int, int],
        idle: Mapping[int, IdleIndex] | None,
    ) -> None:
        self._batch, self._decoded, self._slots = batch, decoded, slots
        self._table, self._rules, self._watermarks, self._idle = table, rules, watermarks, idle
        self._format = table.row_format
        self._several = len(self._format.models) > 1
        self._sequences: dict[int, OpenSequence] = {}
        self._last_samples: dict[int, int] = {}
        self._out = _Rows()
        self._rejected_gaps: list[int] = []
        self._counts: Counter[str] = Counter()

    def route(self, records: Int64Array) -> Routed:
        columns = zip(
            records.tolist(),
            self._slots[records].tolist(),
            self._batch.partitions[records].tolist(),
            self._sequence_records(records),
            strict=True,
        )
        for record, slot, partition, given in columns:
            if self._idle is not None and given.kind != Kind.REJECTED:
                self._advance_watermark(record, partition, given.event_time)
            self._apply(record, slot, given)
            if self._idle is not None and self._sequence(slot).is_open:
                self._idle[partition].watch(self._table.key_of(slot), self._sequence(slot).event_time)
        self._write_back()
        return self._routed()

    def _sequence_records(self, records: Int64Array) -> list[SequenceRecord]:
        decoded = self._decoded
        nothing = [0] * len(records)
        ends = decoded.ends[records].tolist() if decoded.ends is not None else nothing
        steps = decoded.steps[records].tolist() if decoded.steps is not None else nothing
        given_ids = decoded.sequence_ids
        ids = [given_ids[i] for i in records.tolist()] if given_ids is not None else [None] * len(records)
        return [
            SequenceRecord(Kind(kind), offset, event_time, bool(end), step, sequence_id)
            for kind, offset, event_time, end, step, sequence_id in zip(
                decoded.kinds[records].tolist(),
                self._batch.offsets[records].tolist(),
                self._batch.event_times[records].tolist(),
                ends,
                steps,
                ids,
                strict=True,
            )
        ]

    def _sequence(self, slot: int) -> OpenSequence:
        sequence = self._sequences.get(slot)
        if sequence is None:
            header = self._table.rows[slot]
            flags = int(header["flags"])
            sequence = self._sequences[slot] = OpenSequence(
                step=int(header["step"]),
                producer_step=int(header["producer_step"]),
                first_offset=int(header["first_offset"]),
                last_offset=int(header["last_offset"]),
                event_time=int(header["event_time"]),
                sequence_id=self._table.sequence_ids.get(slot, b""),
                tainted=bool(flags & Flag.TAINTED),
                not_finite=bool(flags & Flag.NOT_FINITE),
                decided=bool(flags & Flag.DECIDED),
                model=int(self._format.model_of(self._table.rows[[slot]])[0]) if self._several else 0,
            )
            self._last_samples[slot] = CARRIED
        return sequence

    def _apply(self, record: int, slot: int, given: SequenceRecord) -> None:
        sequence = self._sequence(slot)
        old = replace(sequence)
        verdict = advance(sequence, given, self._rules)
        if verdict.closed_by:
            self._out.add(record, self._last_samples[slot], slot, old, verdict.closed_by, closing=True)
        self._count(verdict)
        if verdict.effect is Effect.GAP_REJECTED:
            self._rejected_gaps.append(record)
        if verdict.effect is not Effect.STEPPED:
            return
        if sequence.step == 1:
            self._counts["started"] += 1
        sample = self._last_samples[slot] = len(self._out.stepped)
        self._out.stepped.append(record)
        self._out.slots.append(slot)
        self._out.steps.append(sequence.step)
        self._out.models.append(sequence.model)
        self._out.add(record, sample, slot, sequence, verdict.ended_by, closing=False)
        if verdict.ended_by:
            close(sequence)

    def _count(self, verdict: Verdict) -> None:
        if verdict.effect is Effect.DUPLICATE:
            self._counts["duplicates"] += 1
        elif verdict.effect is Effect.NO_SEQUENCE:
            self._counts["boundaries_without_sequence"] += 1
        if verdict.gap:
            self._counts["gaps"] += 1

    def _advance_watermark(self, record: int, partition: int, event_time: int) -> None:
        """Close the streams that this record's event time makes idle, before the record itself is applied."""
        if event_time <= self._watermarks.get(partition, -1):
            return
        assert self._idle is not None
        self._watermarks[partition] = event_time

        def last_event_time(key: bytes) -> int | None:
            slot = self._table.slot_of(partition, key)
            if slot is None:
                raise LookupError(f"an idle stream of partition {partition} was not brought into memory")
            sequence = self._sequence(slot)
            return sequence.event_time if sequence.is_open else None

        for key in self._idle[partition].expire(event_time, last_event_time):
            slot = self._table.slot_of(partition, key)
            assert slot is not None
            sequence = self._sequence(slot)
            self._out.add(record, self._last_samples[slot], slot, sequence, EndedBy.IDLE_TIMEOUT, closing=True)
            close(sequence)

    def _write_back(self) -> None:
        header = self._table.rows
        for slot, sequence in self._sequences.items():
            kept = int(header["flags"][slot]) & ~STICKY if sequence.is_open else 0
            row = header[slot]
            row["step"], row["producer_step"] = sequence.step, sequence.producer_step
            row["first_offset"], row["last_offset"] = sequence.first_offset, sequence.last_offset
            row["event_time"], row["flags"] = sequence.event_time, kept | _sticky(sequence)
            if self._several:
                row["model"] = np.void(self._format.models[sequence.model])
            if sequence.is_open and sequence.sequence_id:
                self._table.sequence_ids[slot] = sequence.sequence_id
            else:
                self._table.sequence_ids.pop(slot, None)

    def _routed(self) -> Routed:
        columns = np.array(self._out.rows, np.int64).reshape(-1, 8).T
        return Routed(
            stepped=np.array(self._out.stepped, np.int64),
            slots=np.array(self._out.slots, np.int64),
            steps=np.array(self._out.steps, np.int32),
            row_records=columns[0],
            row_samples=columns[1],
            row_slots=columns[2],
            row_steps=columns[3].astype(np.int32),
            row_first_offsets=columns[4],
            row_flags=columns[5].astype(np.uint8),
            row_closing=columns[6].astype(np.bool_),
            row_ended_by=columns[7].astype(np.uint8),
            row_sequence_ids=self._out.sequence_ids if any(self._out.sequence_ids) else None,
            rejected_gaps=self._rejected_gaps,
            models=np.array(self._out.models, np.uint8) if any(self._out.models) else None,
            row_models=np.array(self._out.row_models, np.uint8) if any(self._out.row_models) else None,
            counts=self._counts,
        )


def _sticky(sequence: OpenSequence) -> int:
    flags = Flag.TAINTED if sequence.tainted else 0
    flags |= Flag.NOT_FINITE if sequence.not_finite else 0
    return int(flags | (Flag.DECIDED if sequence.decided else 0))
