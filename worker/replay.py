"""Recordings sent to a topic as live streams: step by step, one sample of every recording in turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import orjson

from worker.core.types import Headers
from worker.model.datasets import Recording
from worker.ports import Clock, Producer

PARTITION_BY_KEY = -1
"""Leaves the choice to the producer's partitioner."""

CHUNKS_PER_SECOND = 100
"""How finely a rate is kept: a chunk of records each 10 ms."""


@dataclass(frozen=True, slots=True)
class Controls:
    """Which optional controls the samples carry."""

    step: bool = False
    end: bool = False
    sequence_id: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast: records a second over all streams, or samples a second of each stream; both 0: no limit."""

    records_per_second: float = 0.0
    samples_per_second: float = 0.0

    def due(self, records: int, rounds: int) -> float:
        """Seconds after the start at which the next record may go, after so many records and rounds."""
        if self.records_per_second:
            return records / self.records_per_second
        return rounds / self.samples_per_second if self.samples_per_second else 0.0

    def chunk(self, streams: int) -> int:
        """How many records of a round of `streams` go at once."""
        if not self.records_per_second:
            return streams
        return max(1, min(streams, int(self.records_per_second / CHUNKS_PER_SECOND)))


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a recording on its way: `step` is 1-based, `loop` counts the repetitions from 0."""

    recording: Recording
    step: int
    loop: int

    @property
    def controls(self) -> dict[str, Any]:
        """All controls; `SampleEncoder` takes those that are wanted."""
        last = self.step == len(self.recording.features)
        return {"sequence_id": f"{self.recording.name}-{self.loop}", "step": self.step, "end": last}


class SampleEncoder:
    """A sample to the value and the headers of an input record, in the `json` or the `binary` format."""

    def __init__(self, record_format: str, names: Sequence[str] = (), controls: Controls | None = None) -> None:
        """`names`: the JSON fields of the features, in order; none: the array `features`."""
        self._binary = record_format == "binary"
        self._names = names
        self._controls = controls or Controls()

    def encode(self, sample: Sample) -> tuple[bytes, Headers | None]:
        """The record; controls are JSON fields, or headers of a binary one."""
        features = sample.recording.features[sample.step - 1]
        controls = {name: value for name, value in sample.controls.items() if getattr(self._controls, name)}
        if not controls.get("end", True):
            del controls["end"]
        if self._binary:
            headers: Headers = [(name, _header(value)) for name, value in controls.items()]
            return features.astype("<f4").tobytes(), headers or None
        # As numpy's float32: written with the digits that it needs, not with those of the float64 that equals it.
        fields: dict[str, Any] = (
            dict(zip(self._names, features, strict=True)) if self._names else {"features": features}
        )
        return orjson.dumps({**fields, **controls}, option=orjson.OPT_SERIALIZE_NUMPY), None


class Stop(Protocol):
    """A `threading.Event`: set to end a replay early."""

    def wait(self, timeout: float) -> bool:
        """Sleep up to `timeout` seconds; whether it is set."""


def replay(
    recordings: Sequence[Recording],
    producer: Producer,
    topic: str,
    encoder: SampleEncoder,
    clock: Clock,
    *,
    pace: Pace | None = None,
    loops: int | None = 1,
    stop: Stop | None = None,
    advance: Callable[[int], object] | None = None,
) -> int:
    """Send every recording as the stream of its name, all at once step by step; return the records sent.

    `loops`: how often, None for ever. Timestamps are the wall clock's. `advance` is told of every chunk that was
    queued. Ends early once `stop` is set; what was queued is delivered in any case. Raises ProduceFailed.
    """
    pace, stop = pace or Pace(), stop or threading.Event()
    started, records = clock.monotonic(), 0
    for rounds, samples in enumerate(_rounds(recordings, loops)):
        size = pace.chunk(len(samples))
        for first in range(0, len(samples), size):
            chunk = samples[first : first + size]
            if stop.wait(max(0.0, started + pace.due(records, rounds) - clock.monotonic())):
                producer.flush()
                return records
            _send(chunk, producer, topic, encoder, clock.now_ms())
            records += len(chunk)
            if advance is not None:
                advance(len(chunk))
    producer.flush()
    return records


def _rounds(recordings: Sequence[Recording], loops: int | None) -> Iterator[list[Sample]]:
    longest = max((len(recording.features) for recording in recordings), default=0)
    if not longest:
        return
    for loop in count() if loops is None else range(loops):
        for step in range(1, longest + 1):
            yield [Sample(recording, step, loop) for recording in recordings if len(recording.features) >= step]


def _send(samples: Sequence[Sample], producer: Producer, topic: str, encoder: SampleEncoder, now_ms: int) -> None:
    encoded = [encoder.encode(sample) for sample in samples]
    headers = [record_headers for _, record_headers in encoded]
    producer.produce_many(
        topic,
        [PARTITION_BY_KEY] * len(samples),
        [sample.recording.name.encode() for sample in samples],
        [value for value, _ in encoded],
        [now_ms] * len(samples),
        headers if any(headers) else None,
    )


def _header(value: object) -> bytes:
    return ("true" if value is True else str(value)).encode()
