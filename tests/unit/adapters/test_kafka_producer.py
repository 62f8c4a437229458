"""The producers against librdkafka's in-process broker (which knows transactional calls, but not their meaning)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from tests.group_member import deadline
from worker.adapters.embedded_broker import EmbeddedBroker
from worker.adapters.kafka_producer import KafkaProducer, TransactionalKafkaProducer
from worker.core.group_metadata import parse_group_metadata
from worker.errors import OutcomeUnknown, ProduceFailed, Retriable, TransactionAborted

ReadAll = Callable[[int, int], list[Message]]


@pytest.fixture
def read_all(client: dict[str, object], topic: str) -> Iterator[ReadAll]:
    consumer = Consumer({**client, "group.id": topic, "fetch.wait.max.ms": 20})

    def read(partition: int, count: int) -> list[Message]:
        consumer.assign([TopicPartition(topic, partition, 0)])
        messages: list[Message] = []
        with deadline() as check:
            while len(messages) < count:
                messages += consumer.consume(count - len(messages), 0.05)
                check()
        assert all(message.error() is None for message in messages)
        return messages

    yield read
    consumer.close()


@pytest.fixture
def transactional(client: dict[str, object], topic: str) -> Iterator[TransactionalKafkaProducer]:
    made = TransactionalKafkaProducer({**client, "transactional.id": topic})
    made.init_transactions(10)
    yield made
    made.close()


def send(producer: KafkaProducer, topic: str, partitions: list[int]) -> None:
    count = len(partitions)
    producer.produce_many(topic, partitions, [b"k"] * count, [b"v"] * count, [1] * count)
    producer.flush()


def test_records_arrive_in_order_with_key_value_time_and_headers(
    producer: KafkaProducer, topic: str, read_all: ReadAll
) -> None:
    headers = [None, [("a", b"1"), ("a", None)], []]
    producer.produce_many(topic, [1, 1, 1], [b"k", None, b""], [b"v", None, b""], [11, 12, 13], headers)
    producer.flush()
    found = [(m.key(), m.value(), m.timestamp()[1], m.headers()) for m in read_all(1, 3)]
    assert found == [(b"k", b"v", 11, None), (None, None, 12, [("a", b"1"), ("a", None)]), (b"", b"", 13, None)]


def test_the_order_holds_when_the_local_queue_is_full(client: dict[str, object], topic: str, read_all: ReadAll) -> None:
    producer = KafkaProducer({**client, "queue.buffering.max.messages": 10})
    values = [b"%d" % number for number in range(300)]
    producer.produce_many(topic, [0] * 300, [b"k"] * 300, values, [1] * 300)
    producer.produce_many(topic, [0] * 300, [b"k"] * 300, values, [1] * 300, [[("h", b"")]] * 300)
    producer.flush()
    assert [message.value() for message in read_all(0, 600)] == values * 2
    producer.close()


def test_columns_of_different_lengths_are_a_mistake(producer: KafkaProducer, topic: str) -> None:
    with pytest.raises(ValueError, match="longer"):
        producer.produce_many(topic, [0, 0], [b"k", b"k"], [b"v"], [1, 1])


def test_a_record_that_is_too_large_is_refused_by_name(producer: KafkaProducer, topic: str) -> None:
    with pytest.raises(ProduceFailed, match=f"{topic}.*MSG_SIZE_TOO_LARGE"):
        producer.produce_many(topic, [0], [b"k"], [bytes(2_000_000)], [1])


def test_a_record_that_was_not_delivered_fails_everything_after_it(producer: KafkaProducer, topic: str) -> None:
    for _ in range(3):
        with pytest.raises(ProduceFailed, match=f"{topic}.*_UNKNOWN_PARTITION"):
            # Refused at once where the topic's metadata is known already, else by the flush.
            send(producer, topic, [0, 99])
    with pytest.raises(ProduceFailed, match=f"{topic}.*_UNKNOWN_PARTITION"):
        producer.flush()


def test_flush_gives_up_at_its_deadline(topic: str) -> None:
    with EmbeddedBroker() as broker:
        producer = KafkaProducer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0}, flush_timeout=0.2)
    producer.produce_many(topic, [0], [b"k"], [b"v"], [1])
    with pytest.raises(ProduceFailed, match=r"1 records were not confirmed within 0\.2 s"):
        producer.flush()
    producer.close()
    producer.close()


def test_a_tracked_record_knows_its_offset_after_the_flush(
    transactional: TransactionalKafkaProducer, topic: str
) -> None:
    transactional.begin()
    transactional.produce_many(topic, [2] * 3, [b"k"] * 3, [b"v"] * 3, [1] * 3)
    tracked = transactional.produce_tracked(topic, 2, b"k", None, 1, [("h", b"1")])
    with pytest.raises(TransactionAborted, match="not confirmed"):
        _ = tracked.offset
    transactional.flush(10)
    assert tracked.offset == 3
    transactional.commit(10)


def test_a_record_for_a_partition_that_does_not_exist_is_refused_without_a_doubt_about_the_transaction(
    transactional: TransactionalKafkaProducer, topic: str
) -> None:
    transactional.begin()
    transactional.produce_many(topic, [0], [b"k"], [b"v"], [1])
    transactional.flush(10)
    with pytest.raises(ProduceFailed, match=f"{topic}.*_UNKNOWN_PARTITION"):
        transactional.produce_tracked(topic, 99, b"k", b"v", 1)
    assert not transactional.suspect
    transactional.commit(10)


def test_a_tracked_record_that_was_thrown_away_has_no_offset(
    transactional: TransactionalKafkaProducer, topic: str
) -> None:
    transactional.begin()
    tracked = transactional.produce_tracked(topic, 0, b"k", b"v", 1)
    transactional.abort(10)
    with pytest.raises(TransactionAborted, match="was not delivered"):
        _ = tracked.offset
    assert transactional.suspect


def test_a_recycled_producer_begins_with_a_clean_record(transactional: TransactionalKafkaProducer, topic: str) -> None:
    transactional.begin()
    transactional.produce_many(topic, [0], [b"k"], [b"v"], [1])
    transactional.abort(10)
    transactional.recycle(10)
    assert not transactional.suspect
    transactional.begin()
    tracked = transactional.produce_tracked(topic, 0, b"k", b"v", 1)
    transactional.flush(10)
    assert tracked.offset >= 0
    transactional.commit(10)


def test_a_flush_that_was_too_short_is_retriable(client: dict[str, object], topic: str) -> None:
    producer = TransactionalKafkaProducer({**client, "transactional.id": topic, "linger.ms": 1000})
    producer.init_transactions(10)
    producer.begin()
    producer.produce_many(topic, [0] * 5, [b"k"] * 5, [b"v"] * 5, [1] * 5)
    with pytest.raises(Retriable, match="5 records were not answered"):
        producer.flush(0)
    producer.flush(10)
    producer.commit(10)
    producer.close()


def test_offsets_travel_with_the_transaction(transactional: TransactionalKafkaProducer, topic: str) -> None:
    group = parse_group_metadata(b"CGMDv2:\xff\xff\xff\xff" + topic.encode() + b"\x00\x00\x01")
    transactional.begin()
    transactional.produce_many(topic, [0], [b"k"], [b"v"], [1])
    transactional.flush(10)
    transactional.send_offsets(topic, {0: (7, '{"v":1}'), 1: (8, "")}, group, 10)
    transactional.commit(10)
    assert not transactional.suspect


def test_sending_offsets_to_a_coordinator_that_is_gone_comes_back_in_time() -> None:
    with EmbeddedBroker() as broker:
        made = TransactionalKafkaProducer(
            {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": "left-alone", "log_level": 0}
        )
        made.init_transactions(10)
        made.begin()
        made.produce_many("alone", [0], [b"k"], [b"v"], [1])
        made.flush(10)
    group = parse_group_metadata(b"CGMDv2:\xff\xff\xff\xffalone\x00\x00\x01")
    with pytest.raises((OutcomeUnknown, Retriable)):
        made.send_offsets("alone", {0: (7, "")}, group, 1)
    assert made.suspect
    made.close()
