"""A consumer-group member with a listener that writes down what it hears, and ways to wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from worker.adapters.kafka_consumer import KafkaConsumer
from worker.adapters.kafka_producer import KafkaProducer
from worker.core.types import RecordBatch

DEADLINE_S = 20.0
PROTOCOLS: dict[str, dict[str, object]] = {
    "cooperative": {"group.protocol": "classic"},
    "eager": {"partition.assignment.strategy": "range"},
    "KIP-848": {"group.protocol": "consumer"},
}


class Listener:
    """Writes down what it was told; fails on request."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[int, ...]]] = []
        self.owned: set[int] = set()
        self.error: Exception | None = None

    def on_assigned(self, partitions: Sequence[int]) -> None:
        self.events.append(("assigned", tuple(partitions)))
        self.owned |= set(partitions)
        if self.error is not None:
            raise self.error

    def on_revoked(self, partitions: Sequence[int]) -> None:
        self.events.append(("revoked", tuple(partitions)))
        self.owned -= set(partitions)

    def on_lost(self, partitions: Sequence[int]) -> None:
        self.events.append(("lost", tuple(partitions)))
        self.owned -= set(partitions)


Join = Callable[..., tuple[KafkaConsumer, Listener]]


@contextmanager
def deadline() -> Iterator[Callable[[], None]]:
    end = time.monotonic() + DEADLINE_S

    def check() -> None:
        assert time.monotonic() < end, f"nothing came of it within {DEADLINE_S} s"

    yield check


def wait_until_assigned(consumer: KafkaConsumer, listener: Listener, partitions: set[int]) -> None:
    with deadline() as check:
        while listener.owned != partitions:
            assert consumer.poll_batch(10, 0.05) is None
            check()


def read(consumer: KafkaConsumer, count: int) -> list[RecordBatch]:
    """Poll until `count` records came, and once more to see that no other follows."""
    batches: list[RecordBatch] = []
    with deadline() as check:
        while sum(map(len, batches)) < count:
            batch = consumer.poll_batch(1000, 0.05)
            if batch is not None:
                batches.append(batch)
            check()
    assert consumer.poll_batch(1000, 0.1) is None
    return batches


def places(batches: list[RecordBatch]) -> list[tuple[int, int]]:
    return [pair for each in batches for pair in zip(each.partitions.tolist(), each.offsets.tolist(), strict=True)]


def poll_until_error(consumer: KafkaConsumer, seen: list[tuple[int, int]]) -> None:
    with deadline() as check:
        while True:
            batch = consumer.poll_batch(10, 0.05)
            seen += places([batch] if batch else [])
            check()


def fill(producer: KafkaProducer, topic: str, partition: int, count: int) -> None:
    values = [b"%d" % number for number in range(count)]
    producer.produce_many(topic, [partition] * count, [b"key"] * count, values, [1000 + n for n in range(count)])
    producer.flush()
