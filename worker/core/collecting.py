"""Complete sequences out of a topic's records, by the same rules that a worker applies to them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from worker.core.idle import IdleIndex
from worker.core.sequence import Effect, OpenSequence, SequenceRecord, SequenceRules, advance
from worker.core.types import DecodedBatch, EndedBy, Float32Array, Kind, RecordBatch


@dataclass(slots=True)
class _Stream:
    sequence: OpenSequence = field(default_factory=OpenSequence)
    samples: list[Float32Array] = field(default_factory=list)


class SequenceCollector:
    """Keeps the samples of open sequences; those that reach the length untainted are complete."""

    def __init__(self, rules: SequenceRules) -> None:
        self._rules = rules
        self._streams: dict[tuple[int, bytes], _Stream] = {}
        self._watermarks: dict[int, int] = {}
        self._idle: defaultdict[int, IdleIndex] = defaultdict(lambda: IdleIndex(rules.idle_timeout_ms))

    def add(self, batch: RecordBatch, decoded: DecodedBatch) -> list[tuple[bytes, Float32Array]]:
        """Stream key and samples (T, F) of each sequence that these records complete; partitions in offset order."""
        complete: list[tuple[bytes, Float32Array]] = []
        for i, key in enumerate(batch.keys):
            if not key:
                continue
            partition, record = int(batch.partitions[i]), _record(batch, decoded, i)
            if record.kind is not Kind.REJECTED:
                self._advance_watermark(partition, record.event_time)
            stream = self._streams.setdefault((partition, key), _Stream())
            verdict = advance(stream.sequence, record, self._rules)
            if not stream.sequence.is_open or verdict.closed_by:
                stream.samples = []
            if verdict.effect is not Effect.STEPPED:
                continue
            stream.samples.append(decoded.features[i])
            whole = verdict.ended_by is EndedBy.LENGTH and len(stream.samples) == self._rules.length
            if whole and not stream.sequence.tainted:
                complete.append((key, np.array(stream.samples, np.float32)))
            if verdict.ended_by:
                stream.samples = []
                stream.sequence = OpenSequence()
            elif self._rules.idle_timeout_ms:
                self._idle[partition].watch(key, record.event_time)
        return complete

    def _advance_watermark(self, partition: int, event_time: int) -> None:
        """Drop the open sequences that a record of this event time makes idle, before the record itself counts."""
        if not self._rules.idle_timeout_ms or event_time <= self._watermarks.get(partition, -1):
            return
        self._watermarks[partition] = event_time

        def last_event_time(key: bytes) -> int | None:
            sequence = self._streams[partition, key].sequence
            return sequence.event_time if sequence.is_open else None

        for key in self._idle[partition].expire(event_time, last_event_time):
            self._streams[partition, key] = _Stream()


def _record(batch: RecordBatch, decoded: DecodedBatch, i: int) -> SequenceRecord:
    return SequenceRecord(
        Kind(int(decoded.kinds[i])),
        int(batch.offsets[i]),
        int(batch.event_times[i]),
        bool(decoded.ends[i]) if decoded.ends is not None else False,
        int(decoded.steps[i]) if decoded.steps is not None else 0,
        decoded.sequence_ids[i] if decoded.sequence_ids is not None else None,
    )
