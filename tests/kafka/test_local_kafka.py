"""What tests may rely on: a real broker that is ready, keeps its data over restarts and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.kafka_fixtures import started
from tools.kafka.cluster import Kafka, KafkaStartFailed, LocalKafka, Watermarks, cache_folder

pytestmark = pytest.mark.kafka

REPOSITORY = Path(__file__).parents[2]
DEADLINE_SECONDS = 20.0


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A node of this module alone, which may be restarted."""
    with started(LocalKafka(tmp_path_factory.mktemp("local-kafka") / "cluster")) as cluster:
        yield cluster


def send(cluster: Kafka, topic: str, values: list[bytes], transactional_id: str = "") -> Producer:
    """Sends to partition 0; with a transactional id in a transaction that is left open."""
    # Quiet: a producer that is still alive when the node is restarted would say so.
    config: dict[str, object] = {"bootstrap.servers": cluster.bootstrap_servers, "log_level": 0}
    if transactional_id:
        config["transactional.id"] = transactional_id
    producer = Producer(config)
    if transactional_id:
        producer.init_transactions(DEADLINE_SECONDS)
        producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(DEADLINE_SECONDS) == 0
    return producer


def values(cluster: Kafka, topic: str) -> list[bytes | None]:
    """All committed records of partition 0."""
    consumer = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap_servers,
            "group.id": "reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[Message] = []
    while not found or found[-1].error() is None:
        message = consumer.poll(DEADLINE_SECONDS)
        assert message is not None, "neither a record nor the partition's end"
        found.append(message)
    consumer.close()
    return [message.value() for message in found[:-1]]


def run_module(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_records_sent_come_back_in_order(node: LocalKafka) -> None:
    topic = node.create_topic("sent", partitions=1)
    send(node, topic, [b"a", b"b", b"c"])
    assert values(node, topic) == [b"a", b"b", b"c"]


def test_a_topic_is_created_with_its_partitions_and_settings(node: LocalKafka) -> None:
    node.create_topic("small", partitions=3, config={"max.message.bytes": "1000"})
    assert [node.leader("small", partition) for partition in range(4)] == [1, 1, 1, -1]
    with pytest.raises(KafkaException, match="MSG_SIZE_TOO_LARGE"):
        refused_if_too_large(node, "small", 2000)


def refused_if_too_large(cluster: Kafka, topic: str, size: int) -> None:
    errors: list[object] = []
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    producer.produce(topic, bytes(size), partition=0, on_delivery=lambda error, _: errors.append(error))
    producer.flush(DEADLINE_SECONDS)
    if errors[0] is not None:
        raise KafkaException(errors[0])


def test_a_transaction_is_seen_once_it_is_committed_and_never_when_aborted(node: LocalKafka) -> None:
    topic = node.create_topic("transactions", partitions=1)
    producer = send(node, topic, [b"a", b"b"], transactional_id="writer")
    assert values(node, topic) == []
    assert node.watermarks(topic, 0) == Watermarks(last_stable_offset=0, high_watermark=2)
    with pytest.raises(TimeoutError, match=r"stable up to 0 of 2 after 0\.1 s"):
        node.wait_until_stable(topic, 0, seconds_max=0.1)
    producer.commit_transaction(DEADLINE_SECONDS)
    assert node.wait_until_stable(topic, 0) == 3, "two records and the marker"
    assert values(node, topic) == [b"a", b"b"]
    send(node, topic, [b"c"], transactional_id="writer").abort_transaction(DEADLINE_SECONDS)
    assert node.wait_until_stable(topic, 0) == 5
    assert values(node, topic) == [b"a", b"b"]


def test_a_paused_node_answers_nobody_until_it_is_resumed(node: LocalKafka) -> None:
    admin = AdminClient({"bootstrap.servers": node.bootstrap_servers, "log_level": 0})
    node.pause_node(1)
    try:
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=0.5)
    finally:
        node.resume_node(1)
    assert set(admin.list_topics(timeout=DEADLINE_SECONDS).brokers) == {1}


def test_a_restarted_node_keeps_its_data_and_address(node: LocalKafka) -> None:
    topic = node.create_topic("kept", partitions=1)
    send(node, topic, [b"before"])
    address, pids = node.bootstrap_servers, node.pids
    node.restart_node(1)
    assert node.bootstrap_servers == address
    assert node.pids != pids
    send(node, topic, [b"after"])
    assert values(node, topic) == [b"before", b"after"]


def test_a_node_that_cannot_start_is_reported_with_its_reason_and_leaves_nothing(
    node: LocalKafka,
    tmp_path: Path,
) -> None:
    taken = node.bootstrap_servers
    broken = LocalKafka(tmp_path / "cluster", properties={"listeners": f"PLAINTEXT://{taken},CONTROLLER://{taken}"})
    with pytest.raises(KafkaStartFailed, match="listener"):
        broken.start()
    assert broken.pids == []
    assert not broken.folder.exists()


def test_the_command_starts_one_cluster_says_where_it_is_and_ends_it(node: LocalKafka, tmp_path: Path) -> None:
    assert node.pids, "the jars are in the cache"
    for jars in cache_folder().glob("jars-*"):
        (tmp_path / jars.name).symlink_to(jars)
    command, cache = "tools.kafka", {"LSTM_WORKER_KAFKA_CACHE": str(tmp_path)}
    assert run_module(command, "status", **cache).returncode == 3
    begun = run_module(command, "start", **cache)
    try:
        assert begun.returncode == 0, begun.stderr
        address = begun.stdout.strip()
        assert AdminClient({"bootstrap.servers": address}).list_topics(timeout=DEADLINE_SECONDS).brokers
        assert run_module(command, "start", **cache).stdout.strip() == address
        assert run_module(command, "status", **cache).stdout == f"{address} (1 of 1 nodes run)\n"
    finally:
        ended = run_module(command, "stop", **cache)
    assert ended.stdout == "stopped\n"
    with pytest.raises(KafkaException):
        AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=0.5)
    assert not (tmp_path / "cluster").exists()
    assert run_module(command, "stop", **cache).stdout == "not running\n"


@pytest.mark.parametrize(("ci", "expected"), [("", "1 skipped"), ("true", "1 error")])
def test_without_java_and_maven_tests_are_skipped_but_fail_in_ci(tmp_path: Path, ci: str, expected: str) -> None:
    test = tmp_path / "test_needs_a_broker.py"
    test.write_text("def test_it(kafka):\n    assert kafka.bootstrap_servers\n")
    options = ["-p", "tests.kafka_fixtures", "-p", "no:cacheprovider", "-rs", "--rootdir", str(tmp_path)]
    ended = run_module("pytest", *options, str(test), PATH="/nowhere", CI=ci, KAFKA_BOOTSTRAP_SERVERS="")
    assert expected in ended.stdout
    assert "java and mvn not found: a real broker needs a JDK 17 and Maven" in ended.stdout
