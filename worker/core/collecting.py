"""Complete sequences out of a topic's records, by the same rules that a worker applies to them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

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

    def add(self, batch: RecordBatch, decoded: DecodedBatch) -> list[tuple[bytes, Float32Array]]:
        """Stream key and samples (T, F) of each sequence that these records complete; partitions in offset order."""
        complete: list[tuple[bytes, Float32Array]] = []
        for i, key in enumerate(batch.keys):
            if not key:
                continue
            stream = self._streams.setdefault((int(batch.partitions[i]), key), _Stream())
            verdict = advance(stream.sequence, _record(batch, decoded, i), self._rules)
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
        return complete


def _record(batch: RecordBatch, decoded: DecodedBatch, i: int) -> SequenceRecord:
    return SequenceRecord(
        Kind(int(decoded.kinds[i])),
        int(batch.offsets[i]),
        int(batch.event_times[i]),
        bool(decoded.ends[i]) if decoded.ends is not None else False,
        int(decoded.steps[i]) if decoded.steps is not None else 0,
        decoded.sequence_ids[i] if decoded.sequence_ids is not None else None,
    )
