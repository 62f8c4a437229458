"""Complete sequences of an input topic, for `calibrate`: what a worker has been given, from the beginning to now."""

from __future__ import annotations

import numpy as np
from rich.console import Console

from worker.adapters.clock import SystemClock
from worker.adapters.kafka_admin import KafkaAdmin
from worker.adapters.kafka_follower import FollowedRecord, Follower
from worker.cli.progress import progress
from worker.config import Settings
from worker.core.codec import input_decoder
from worker.core.collecting import SequenceCollector
from worker.core.sequence import OnGap, SequenceRules
from worker.core.types import RecordBatch
from worker.errors import ConfigError
from worker.model.calibration import Program
from worker.model.datasets import Sequences

TIMEOUT_SECONDS = 10.0
SILENT_SECONDS_MAX = 30.0
"""Without a record or an end for so long, the broker is not answering."""
SEQUENCES_MAX = 100_000


def read_topic(console: Console, settings: Settings, topic: str, program: Program, timesteps: int) -> Sequences:
    """Sequences of `timesteps` samples that are complete and untainted; at most SEQUENCES_MAX.

    A stream's sequences count as one recording. Raises ConfigError where the topic is missing or holds none, or where
    the settings give sequences another length.
    """
    admin = KafkaAdmin(settings.admin_properties(), timeout=TIMEOUT_SECONDS)
    admin.check_reachable(TIMEOUT_SECONDS)
    partitions = admin.partition_count(topic)
    if partitions is None:
        raise ConfigError(f"topic {topic} is missing", "name another one")
    decoder = input_decoder(
        settings.input.format,
        features=program.features,
        names=settings.input.features,
        value_bytes_max=settings.input.max_bytes,
        future_ms_max=settings.input.max_future_ms,
    )
    collector = SequenceCollector(_rules(settings, timesteps))
    first = admin.start_offsets(topic, range(partitions))
    last = admin.end_offsets(topic, range(partitions), read_committed=True)
    reader = Follower(
        settings.kafka.bootstrap_servers, topic, range(partitions), properties=settings.admin_properties()
    )
    found: list[tuple[bytes, np.ndarray]] = []
    clock = SystemClock()
    heard = clock.monotonic()
    with progress(console, "reading", sum(last[index] - first[index] for index in first)) as advance:
        while len(reader.at_end) < partitions and len(found) < SEQUENCES_MAX:
            records = reader.poll(0.2)
            if records:
                heard = clock.monotonic()
                batch = _batch(records)
                found += collector.add(batch, decoder.decode(batch, clock.now_ms()))
                advance(len(records))
            if clock.monotonic() - heard > SILENT_SECONDS_MAX:
                raise ConfigError(
                    f"topic {topic}: nothing was read for {SILENT_SECONDS_MAX:.0f} s", "look at the broker"
                )
    reader.close()
    if not found:
        raise ConfigError(
            f"topic {topic} holds no complete sequence of {timesteps} samples", "give recordings in a file"
        )
    names = [key.hex() for key, _ in found]
    return Sequences(np.stack([samples for _, samples in found]), [""] * len(found), names)


def _rules(settings: Settings, timesteps: int) -> SequenceRules:
    """A worker's with these settings. Raises ConfigError where its sequences have another length."""
    sequence = settings.sequence
    if sequence.length not in (0, timesteps):
        raise ConfigError(
            f"sequence.length = {sequence.length}: a calibration forecasts step {timesteps}",
            "leave sequence.length at 0",
        )
    return SequenceRules(timesteps, OnGap(sequence.on_gap), sequence.idle_timeout_ms)


def _batch(records: list[FollowedRecord]) -> RecordBatch:
    return RecordBatch(
        partitions=np.array([record.partition for record in records], np.int32),
        offsets=np.array([record.offset for record in records], np.int64),
        event_times=np.array([record.timestamp_ms for record in records], np.int64),
        keys=[record.key for record in records],
        values=[record.value for record in records],
        headers=[record.headers or None for record in records],
    )
