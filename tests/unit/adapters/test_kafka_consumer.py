"""The consumer against librdkafka's in-process broker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.group_member import (
    PROTOCOLS,
    Join,
    Listener,
    deadline,
    fill,
    places,
    poll_until_error,
    read,
    wait_until_assigned,
)
from worker.adapters.kafka_consumer import KafkaConsumer
from worker.adapters.kafka_producer import KafkaProducer
from worker.errors import PositionOutOfRange, Retriable


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_partitions_are_fetched_from_where_start_at_says_and_can_be_rewound(
    protocol: str, join: Join, producer: KafkaProducer, topic: str
) -> None:
    for partition in (0, 1, 2):
        fill(producer, topic, partition, 5)
    consumer, listener = join(**PROTOCOLS[protocol])
    wait_until_assigned(consumer, listener, {0, 1, 2, 3})
    assert consumer.poll_batch(10, 0.1) is None

    consumer.start_at({1: 3})
    assert places(read(consumer, 2)) == [(1, 3), (1, 4)]
    consumer.start_at({2: 4, 3: 0})
    assert places(read(consumer, 1)) == [(2, 4)]
    fill(producer, topic, 1, 1)
    assert places(read(consumer, 1)) == [(1, 5)]

    fill(producer, topic, 0, 500)
    consumer.start_at({0: 0})
    with deadline() as check:
        while consumer.poll_batch(10, 0.05) is None:
            check()
    consumer.start_at({0: 502, 1: 5})
    assert sorted(places(read(consumer, 4))) == [(0, 502), (0, 503), (0, 504), (1, 5)]


def test_starting_a_partition_that_is_not_assigned_is_refused(join: Join) -> None:
    consumer, listener = join()
    wait_until_assigned(consumer, listener, {0, 1, 2, 3})
    with pytest.raises(ValueError, match=r"\[7\] .* not assigned"):
        consumer.start_at({0: 0, 7: 0})


def test_columns_hold_what_was_produced(join: Join, producer: KafkaProducer, topic: str) -> None:
    headers = [None, [("step", b"3"), ("none", None), ("empty", b"")], []]
    producer.produce_many(topic, [2] * 3, [b"a", None, b""], [b"x", None, b""], [1, 2, 1795453368722], headers)
    producer.flush()
    consumer, listener = join()
    wait_until_assigned(consumer, listener, {0, 1, 2, 3})
    consumer.start_at({2: 0})
    (batch,) = read(consumer, 3)
    assert batch.partitions.tolist() == [2, 2, 2]
    assert batch.offsets.tolist() == [0, 1, 2]
    assert batch.event_times.tolist() == [1, 2, 1795453368722]
    assert batch.keys == [b"a", None, b""]
    assert batch.values == [b"x", None, b""]
    assert batch.headers == [None, [("step", b"3"), ("none", None), ("empty", b"")], None]
    assert (batch.partitions.dtype, batch.offsets.dtype, batch.event_times.dtype) == (np.int32, np.int64, np.int64)


@pytest.mark.parametrize("value", [None, b""])
def test_a_record_without_content_that_comes_alone_is_a_record(
    value: bytes | None, join: Join, producer: KafkaProducer, topic: str
) -> None:
    producer.produce_many(topic, [0], [b"key"], [value], [1])
    producer.flush()
    consumer, listener = join()
    wait_until_assigned(consumer, listener, {0, 1, 2, 3})
    consumer.start_at({0: 0})
    (batch,) = read(consumer, 1)
    assert batch.values == [value]


def test_headers_are_none_when_no_record_has_any(join: Join, producer: KafkaProducer, topic: str) -> None:
    fill(producer, topic, 0, 3)
    consumer, listener = join()
    wait_until_assigned(consumer, listener, {0, 1, 2, 3})
    consumer.start_at({0: 0})
    assert all(batch.headers is None for batch in read(consumer, 3))


def test_a_batch_never_exceeds_its_maximum_and_keeps_the_order(join: Join, producer: KafkaProducer, topic: str) -> None:
    fill(producer, topic, 0, 100)
    consumer, listener = join()
    wait_until_assigned(consumer, listener, {0, 1, 2, 3})
    consumer.start_at({0: 0})
    seen: list[int] = []
    with deadline() as check:
        while len(seen) < 100:
            batch = consumer.poll_batch(7, 0.05)
            if batch is not None:
                assert len(batch) <= 7
                seen += batch.offsets.tolist()
            check()
    assert seen == list(range(100))


def test_an_offset_beyond_the_log_is_reported_after_the_records_and_start_at_revives_the_partition(
    join: Join, producer: KafkaProducer, topic: str
) -> None:
    fill(producer, topic, 0, 3)
    fill(producer, topic, 1, 3)
    consumer, listener = join()
    wait_until_assigned(consumer, listener, {0, 1, 2, 3})
    consumer.start_at({0: 99, 1: 0})
    seen: list[tuple[int, int]] = []
    with pytest.raises(PositionOutOfRange) as raised:
        poll_until_error(consumer, seen)
    assert (raised.value.partition, raised.value.offset) == (0, 99)
    consumer.start_at({0: 1})
    seen += places(read(consumer, 5 - len(seen)))
    assert sorted(seen) == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_committed_offsets_come_back_and_are_none_before(join: Join) -> None:
    consumer, listener = join()
    wait_until_assigned(consumer, listener, {0, 1, 2, 3})
    assert consumer.committed([0, 1]) == {0: None, 1: None}
    consumer.commit({})
    consumer.commit({0: (7, "who")})
    assert consumer.committed([0, 1]) == {0: 7, 1: None}
    assert consumer.committed_with_metadata([0]) == {0: (7, "who")}


def test_an_error_of_the_listener_surfaces_from_poll_batch(join: Join) -> None:
    consumer, listener = join()
    listener.error = LookupError("no store")
    with pytest.raises(LookupError, match="no store"):
        poll_until_error(consumer, [])


def test_closing_revokes_and_can_be_repeated(join: Join) -> None:
    consumer, listener = join()
    wait_until_assigned(consumer, listener, {0, 1, 2, 3})
    consumer.close()
    consumer.close()
    assert listener.events == [("assigned", (0, 1, 2, 3)), ("revoked", (0, 1, 2, 3))]


def test_lag_comes_from_statistics(join: Join, producer: KafkaProducer, topic: str) -> None:
    fill(producer, topic, 0, 5)
    consumer, listener = join(**{"group.protocol": "consumer", "statistics.interval.ms": 50})
    wait_until_assigned(consumer, listener, {0, 1, 2, 3})
    assert consumer.consumer_lag() == {}
    consumer.start_at({0: 2, 1: 0})
    assert places(read(consumer, 3)) == [(0, 2), (0, 3), (0, 4)]
    with deadline() as check:
        while consumer.consumer_lag() != {0: 0, 1: 0}:
            consumer.poll_batch(1, 0.05)
            check()


def test_only_the_metadata_of_a_joined_member_can_fence(join: Join, topic: str) -> None:
    consumer, listener = join()
    assert not consumer.group_metadata().can_fence
    wait_until_assigned(consumer, listener, {0, 1, 2, 3})
    joined = consumer.group_metadata()
    assert joined.can_fence
    assert {consumer.assigned_to(partition) for partition in range(4)} == {joined.member_id}
    assert consumer.assigned_to(99) == ""
    assert joined.group == topic
    assert joined.generation >= 0


def test_a_commit_that_the_group_refuses_is_retriable(join: Join, client: dict[str, object], topic: str) -> None:
    member, listener = join()
    wait_until_assigned(member, listener, {0, 1, 2, 3})
    outsider = KafkaConsumer({**client, "group.id": topic}, topic)
    with pytest.raises(Retriable, match="UNKNOWN_MEMBER_ID"):
        outsider.commit({0: (1, "")})
    outsider.close()


def test_the_listener_can_commit_while_the_consumer_closes(client: dict[str, object], topic: str) -> None:
    class Committing(Listener):
        def on_revoked(self, partitions: Sequence[int]) -> None:
            consumer.commit(dict.fromkeys(partitions, (5, "")))
            super().on_revoked(partitions)

    listener = Committing()
    config = {**client, "group.id": topic, "group.protocol": "consumer"}
    consumer = KafkaConsumer(config, topic, listener)
    wait_until_assigned(consumer, listener, {0, 1, 2, 3})
    consumer.start_at({0: 0})
    consumer.close()
    successor = KafkaConsumer(config, topic)
    assert successor.committed([0, 3]) == {0: 5, 3: 5}
    successor.close()
