"""What the output topic must hold, computed from the input alone: one record at a time, one dictionary a stream.

Written from the rules, not from the worker's code: no columns, no slots, no batches. Numbers come from a function
that evaluates a whole sequence (`model(samples) -> list of logits, one a sample`), so steps are never carried over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

Model = Callable[[list[list[float]]], list[float]]


@dataclass(frozen=True)
class Given:
    """One input record. `features` None: no sample. `bad`: it could not be decoded."""

    partition: int
    offset: int
    key: bytes
    event_time: int
    features: tuple[float, ...] | None = None
    end: bool = False
    step: int | None = None
    sequence_id: str | None = None
    bad: bool = False


@dataclass(frozen=True)
class Expected:
    """One output record, without its numbers but with the samples they come from."""

    partition: int
    source_offset: int
    key: bytes
    step: int
    first_offset: int
    final: bool
    ended_by: str | None
    closing: bool
    tainted: bool
    sequence: str
    samples: tuple[tuple[float, ...], ...]


@dataclass
class _Sequence:
    first_offset: int
    name: str | None
    length: int
    """Of the model that it began with."""
    samples: list[tuple[float, ...]] = field(default_factory=list)
    producer_step: int = 0
    last_time: int = 0
    tainted: bool = False


class Oracle:
    """Feed records of any partitions in partition order; `outputs` are what must have been published."""

    def __init__(self, length: int = 0, on_gap: str = "taint", idle_timeout_ms: int = 0) -> None:
        self.length, self.on_gap, self.idle_timeout_ms = length, on_gap, idle_timeout_ms
        self.open: dict[tuple[int, bytes], _Sequence] = {}
        self.watermark: dict[int, int] = {}
        self.outputs: list[Expected] = []
        self.dead: list[tuple[int, int]] = []

    def feed(self, records: Iterable[Given]) -> Oracle:
        for record in records:
            self._one(record)
        return self

    def _emit(self, record: Given, key: bytes, sequence: _Sequence, ended_by: str | None, closing: bool) -> None:
        self.outputs.append(
            Expected(
                partition=record.partition,
                source_offset=record.offset,
                key=key,
                step=len(sequence.samples),
                first_offset=sequence.first_offset,
                final=ended_by is not None,
                ended_by=ended_by,
                closing=closing,
                tainted=sequence.tainted,
                sequence=sequence.name or f"{record.partition}-{sequence.first_offset}",
                samples=tuple(sequence.samples),
            )
        )

    def _close(self, record: Given, key: bytes, ended_by: str) -> None:
        sequence = self.open.pop((record.partition, key))
        self._emit(record, key, sequence, ended_by, closing=True)

    def _idle(self, record: Given) -> None:
        if record.event_time <= self.watermark.get(record.partition, -1):
            return
        self.watermark[record.partition] = record.event_time
        if not self.idle_timeout_ms:
            return
        due = sorted(
            (sequence.last_time + self.idle_timeout_ms, key)
            for (partition, key), sequence in self.open.items()
            if partition == record.partition and sequence.last_time + self.idle_timeout_ms <= record.event_time
        )
        for _, key in due:
            self._close(record, key, "idle_timeout")

    def _one(self, record: Given) -> None:
        stream = (record.partition, record.key)
        if record.bad:
            self.dead.append((record.partition, record.offset))
            if stream in self.open:
                self.open[stream].tainted = True
            return
        self._idle(record)
        sequence = self.open.get(stream)
        renamed = (
            sequence is not None and record.sequence_id is not None and record.sequence_id != (sequence.name or "")
        )
        if record.features is None:
            if sequence is not None:
                self._close(record, record.key, "sequence_change" if renamed else "end_marker")
            return
        if renamed:
            self._close(record, record.key, "sequence_change")
            sequence = None
        skipped = False
        if record.step is not None:
            if sequence is not None and record.step <= sequence.producer_step:
                if record.step != 1 or record.event_time <= sequence.last_time:
                    return
                self._close(record, record.key, "restart")
                sequence = None
            skipped = record.step > (sequence.producer_step if sequence else 0) + 1
            if skipped and self.on_gap == "reject":
                self.dead.append((record.partition, record.offset))
                if sequence is not None:
                    sequence.tainted, sequence.producer_step = True, record.step
                return
            if skipped and self.on_gap == "reset" and sequence is not None:
                self._close(record, record.key, "gap")
                sequence = None
        if sequence is None:
            sequence = self.open[stream] = _Sequence(record.offset, record.sequence_id, self.length)
        sequence.samples.append(record.features)
        sequence.last_time = record.event_time
        if record.step is not None:
            sequence.producer_step = record.step
        if skipped and self.on_gap == "taint":
            sequence.tainted = True
        ended_by = "length" if sequence.length and len(sequence.samples) >= sequence.length else None
        if ended_by is None and record.end:
            ended_by = "end_marker"
        self._emit(record, record.key, sequence, ended_by, closing=False)
        if ended_by:
            del self.open[stream]
