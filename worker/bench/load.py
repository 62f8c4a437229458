"""Input for measurements: keys uniform or skewed, samples by seed, the same for every contender."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from confluent_kafka import Producer

from worker.adapters.kafka_producer import DEFAULTS as PRODUCER_DEFAULTS
from worker.core.types import Float32Array, Int64Array
from worker.errors import ConfigError

PARTITIONS = 4
FLUSH_SECONDS_MAX = 120


@dataclass(frozen=True, slots=True)
class Load:
    """`records` samples of `features` numbers for `streams` keys, spread over the partitions by stream.

    zipf: exponent of the keys' distribution; 0: the streams take turns.
    """

    records: int
    streams: int
    features: int
    record_format: str = "binary"
    zipf: float = 0.0
    seed: int = 1

    def samples(self) -> Float32Array:
        """(records, features) float32."""
        generator = np.random.default_rng(self.seed)
        return generator.standard_normal((self.records, self.features), dtype=np.float32)

    def stream_numbers(self) -> Int64Array:
        """(records,) which stream each record belongs to, 0 … streams - 1."""
        if not self.zipf:
            return np.arange(self.records, dtype=np.int64) % self.streams
        # The k-th most frequent stream has a share in proportion to k ** -zipf.
        shares = np.cumsum(np.arange(1, self.streams + 1, dtype=np.float64) ** -self.zipf)
        draws = np.random.default_rng(self.seed + 1).random(self.records)
        return np.searchsorted(shares / shares[-1], draws).astype(np.int64).clip(max=self.streams - 1)

    def values(self) -> list[bytes]:
        """The samples in their record format."""
        rows = self.samples()
        if self.record_format == "binary":
            packed: list[bytes] = rows.astype("<f4").view(f"V{4 * self.features}").ravel().tolist()
            return packed
        return [b'{"features":[' + b",".join(b"%.6f" % number for number in row) + b"]}" for row in rows.tolist()]

    @property
    def title(self) -> str:
        """For people: how many records of what."""
        skew = f", Zipf {self.zipf:g}" if self.zipf else ""
        return f"{self.records:,} records, {self.streams:,} streams{skew}, {self.record_format}"


def stream_key(stream: int) -> bytes:
    """A stream's record key."""
    return b"s%07d" % stream


def stream_partition(stream: int) -> int:
    """A stream's partition."""
    return stream % PARTITIONS


def load_topic(bootstrap: str, topic: str, load: Load) -> None:
    """Produce the load; waits until all is on the broker."""
    producer = Producer(
        {**PRODUCER_DEFAULTS, "bootstrap.servers": bootstrap, "enable.idempotence": True, "log_level": 0}
    )
    for stream, value in zip(load.stream_numbers().tolist(), load.values(), strict=True):
        while True:
            try:
                producer.produce(topic, value, stream_key(stream), stream_partition(stream))
                break
            except BufferError:
                producer.poll(0.05)
    if producer.flush(FLUSH_SECONDS_MAX):
        raise ConfigError(f"the load could not be produced within {FLUSH_SECONDS_MAX} s", "check the broker")
