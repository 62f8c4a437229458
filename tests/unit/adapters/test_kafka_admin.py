"""What the embedded broker can answer of the admin calls, and what is said when nobody answers."""

from __future__ import annotations

import pytest

from worker.adapters.embedded_broker import PARTITIONS_PER_TOPIC, RETENTION_BYTES_PER_PARTITION, EmbeddedBroker
from worker.adapters.kafka_admin import KafkaAdmin, TopicPlan
from worker.adapters.kafka_producer import KafkaProducer
from worker.errors import BrokerUnreachable, ConfigError


def test_asking_for_the_number_of_partitions_does_not_create_the_topic(admin: KafkaAdmin) -> None:
    assert admin.partition_count("never-made") is None
    assert admin.partition_count("never-made") is None


def test_a_touched_topic_exists_on_the_embedded_broker(admin: KafkaAdmin) -> None:
    admin.touch_topics(["touched", "touched too"])
    assert admin.partition_count("touched") == PARTITIONS_PER_TOPIC


def test_start_and_end_offsets(admin: KafkaAdmin, producer: KafkaProducer, topic: str) -> None:
    producer.produce_many(topic, [1] * 3, [b"k"] * 3, [b"v"] * 3, [1] * 3)
    producer.flush()
    assert admin.start_offsets(topic, [0, 1]) == {0: 0, 1: 0}
    assert admin.end_offsets(topic, [0, 1], read_committed=True) == {0: 0, 1: 3}
    assert admin.end_offsets(topic, [1], read_committed=False) == {1: 3}
    assert admin.end_offsets(topic, [], read_committed=True) == {}


def test_the_embedded_broker_drops_the_oldest_records_of_a_full_partition(
    admin: KafkaAdmin, producer: KafkaProducer, topic: str
) -> None:
    records, size = 12, RETENTION_BYTES_PER_PARTITION // 10
    for _ in range(records):
        producer.produce_many(topic, [0], [b"k"], [bytes(size)], [1])
        producer.flush()
    assert 0 < admin.start_offsets(topic, [0])[0] < records


def test_offsets_of_a_missing_partition_name_the_way_out(admin: KafkaAdmin, topic: str) -> None:
    with pytest.raises(ConfigError, match="missing: run `lstm-worker topics`"):
        admin.end_offsets(topic, [99], read_committed=True)


def test_an_existing_topic_with_another_partition_count_is_refused(admin: KafkaAdmin, topic: str) -> None:
    with pytest.raises(ConfigError, match=f"topic {topic} has 4 partitions, expected 6"):
        admin.ensure_topics([TopicPlan(topic, 6)])


def test_a_broker_that_answers_is_reachable(admin: KafkaAdmin) -> None:
    admin.check_reachable(5)
    assert admin.cluster_id()


def test_nobody_at_the_address_is_said_with_address_deadline_and_reason() -> None:
    with EmbeddedBroker() as broker:
        address = broker.bootstrap_servers
    admin = KafkaAdmin({"bootstrap.servers": address, "log_level": 0})
    with pytest.raises(BrokerUnreachable) as raised:
        admin.check_reachable(0.3)
    text = str(raised.value)
    assert text.startswith(f"no broker answered at {address} within 0.3 s (")
    assert "Connection refused" in text
    assert text.endswith("check kafka.bootstrap_servers")
