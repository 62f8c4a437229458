"""What the admin adapter promises and only a real broker can answer: creating, policies, ids, stable offsets."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.unit.cli.conftest import Cli, cli
from tools.kafka.cluster import Kafka
from worker.adapters.clock import SystemClock
from worker.adapters.kafka_admin import KafkaAdmin, TopicPlan, TopicReport
from worker.errors import ConfigError, Retriable

__all__ = ["cli"]

DEADLINE_SECONDS = 20.0
REPLICAS_TOO_MANY = 99

Name = Callable[[str], str]


@pytest.fixture
def admin(kafka: Kafka) -> KafkaAdmin:
    return KafkaAdmin({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})


@pytest.fixture
def raw(kafka: Kafka) -> AdminClient:
    """For what the worker never does: deleting topics and records."""
    return AdminClient({"bootstrap.servers": kafka.bootstrap_servers})


@pytest.fixture
def name() -> Name:
    """Topic names of this test alone, also on a cluster that others use."""
    prefix = uuid.uuid4().hex[:12]
    return lambda topic: f"{prefix}-{topic}"


def write(kafka: Kafka, topic: str, count: int, transactional_id: str = "") -> Producer:
    """Writes to partition 0; with a transactional id in a transaction that is left open."""
    config: dict[str, object] = {"bootstrap.servers": kafka.bootstrap_servers}
    if transactional_id:
        config["transactional.id"] = transactional_id
    producer = Producer(config)
    if transactional_id:
        producer.init_transactions(DEADLINE_SECONDS)
        producer.begin_transaction()
    for _ in range(count):
        producer.produce(topic, b"value", b"key", partition=0)
    assert producer.flush(DEADLINE_SECONDS) == 0
    return producer


def delete(raw: AdminClient, admin: KafkaAdmin, topic: str) -> None:
    raw.delete_topics([topic])[topic].result(DEADLINE_SECONDS)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while admin.partition_count(topic) is not None:
        assert time.monotonic() < deadline, f"{topic} is still there"


def test_a_group_that_never_existed_has_no_members(admin: KafkaAdmin, name: Name) -> None:
    group, clock = name("group"), SystemClock()
    deadline = clock.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            assert admin.group_members(group) == []
        except Retriable:
            # The first group of a fresh cluster waits for its coordinator.
            assert clock.monotonic() < deadline
            continue
        return


def test_missing_topics_are_created_as_planned_and_found_the_next_time(admin: KafkaAdmin, name: Name) -> None:
    plans = [
        TopicPlan(name("in"), 3),
        TopicPlan(name("states"), 3, "compact", properties={"delete.retention.ms": "1234"}),
    ]
    assert admin.ensure_topics(plans) == [
        TopicReport(name("in"), 3, created=True),
        TopicReport(name("states"), 3, created=True),
    ]
    assert admin.partition_count(name("in")) == 3
    assert admin.topic_setting(name("in"), "cleanup.policy") == "delete"
    assert admin.topic_setting(name("states"), "cleanup.policy") == "compact"
    assert admin.topic_setting(name("states"), "delete.retention.ms") == "1234"
    assert [report.created for report in admin.ensure_topics(plans)] == [False, False]


def test_asking_for_the_number_of_partitions_creates_nothing(admin: KafkaAdmin, name: Name) -> None:
    assert admin.partition_count(name("never-made")) is None
    assert admin.partition_count(name("never-made")) is None


@pytest.mark.parametrize(
    ("needed", "actual", "consequence"),
    [
        ("compact", "delete", "which deletes states: set cleanup.policy=compact on it"),
        ("compact", "compact,delete", "which deletes states: set cleanup.policy=compact on it"),
        ("delete", "compact", "which drops records: set cleanup.policy=delete on it"),
        ("delete", "compact,delete", "which drops records: set cleanup.policy=delete on it"),
    ],
)
def test_a_topic_with_the_wrong_cleanup_policy_is_refused(
    kafka: Kafka, admin: KafkaAdmin, name: Name, needed: str, actual: str, consequence: str
) -> None:
    topic = kafka.create_topic(name("topic"), 1, {"cleanup.policy": actual})
    with pytest.raises(ConfigError) as raised:
        admin.ensure_topics([TopicPlan(topic, 1, needed)])
    # The broker lists a policy's parts in an order of its own.
    shown = str(raised.value).replace("delete,compact", "compact,delete")
    assert shown == f"topic {topic} has cleanup.policy={actual}, {consequence}"


def test_nothing_is_created_when_an_existing_topic_does_not_fit(kafka: Kafka, admin: KafkaAdmin, name: Name) -> None:
    kafka.create_topic(name("out"), 2)
    with pytest.raises(ConfigError, match="has 2 partitions, expected 3"):
        admin.ensure_topics([TopicPlan(name("in"), 3), TopicPlan(name("out"), 3)])
    assert admin.partition_count(name("in")) is None


@pytest.mark.parametrize(
    ("topic", "replicas", "reason"),
    [("fine", REPLICAS_TOO_MANY, "[Rr]eplication"), ("not/a/name", -1, "illegal|INVALID|[Ii]nvalid")],
)
def test_what_the_broker_refuses_to_create_is_the_users_mistake(
    admin: KafkaAdmin, name: Name, topic: str, replicas: int, reason: str
) -> None:
    with pytest.raises(ConfigError, match=f"creating topic {name(topic)}.*({reason}).*create the topic by hand"):
        admin.ensure_topics([TopicPlan(name(topic), 1, replication_factor=replicas)])


def test_a_topic_created_anew_has_another_id(kafka: Kafka, admin: KafkaAdmin, raw: AdminClient, name: Name) -> None:
    topic = kafka.create_topic(name("topic"), 1)
    first = admin.topic_id(topic)
    assert first
    assert admin.topic_id(topic) == first
    delete(raw, admin, topic)
    kafka.create_topic(topic, 1)
    assert admin.topic_id(topic) not in ("", first)


def test_stable_ends_stop_before_an_open_transaction(kafka: Kafka, admin: KafkaAdmin, name: Name) -> None:
    topic = kafka.create_topic(name("topic"), 2)
    write(kafka, topic, 3)
    producer = write(kafka, topic, 4, transactional_id=name("writer"))
    assert admin.end_offsets(topic, [0, 1], read_committed=True) == {0: 3, 1: 0}
    assert admin.end_offsets(topic, [0, 1], read_committed=False) == {0: 7, 1: 0}
    producer.commit_transaction(DEADLINE_SECONDS)
    after_the_marker = {0: kafka.wait_until_stable(topic, 0), 1: 0}
    assert after_the_marker[0] == 8
    assert admin.end_offsets(topic, [0, 1], read_committed=True) == after_the_marker
    assert admin.end_offsets(topic, [0, 1], read_committed=False) == after_the_marker


def test_the_start_moves_when_the_oldest_records_are_deleted(
    kafka: Kafka, admin: KafkaAdmin, raw: AdminClient, name: Name
) -> None:
    topic = kafka.create_topic(name("topic"), 1)
    write(kafka, topic, 5)
    assert admin.start_offsets(topic, [0]) == {0: 0}
    up_to = TopicPartition(topic, 0, 2)
    raw.delete_records([up_to])[up_to].result(DEADLINE_SECONDS)
    assert admin.start_offsets(topic, [0]) == {0: 2}


@pytest.fixture
def options(kafka: Kafka, name: Name) -> list[str]:
    """Options of `lstm-worker topics` that name topics and a group of this test alone."""
    topics = [f"topics.{key}={name(key)}" for key in ("input", "output", "dead_letter")]
    sets = [word for setting in topics for word in ("--set", setting)]
    return ["--bootstrap-servers", kafka.bootstrap_servers, "--group-id", name("group"), *sets]


def shown(out: str) -> dict[str, tuple[str, str, str]]:
    """The table's rows by topic: partitions, policy, what was done."""
    rows = [[cell.strip() for cell in line.strip("│ \n").split("│")] for line in out.splitlines() if "│" in line]
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def test_the_topics_command_creates_what_is_missing_and_then_finds_it(
    cli: Cli, options: list[str], admin: KafkaAdmin, name: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    changelog = f"{name('group')}-state-changelog"
    ended = cli("topics", "--partitions", "3", *options)
    assert (ended.code, ended.err) == (0, "")
    assert shown(ended.out) == {
        name("input"): ("3", "delete", "created"),
        name("output"): ("3", "delete", "created"),
        name("dead_letter"): ("3", "delete", "created"),
        changelog: ("3", "compact", "created"),
    }
    assert admin.topic_setting(changelog, "delete.retention.ms") == "604800000", "a week"
    assert admin.topic_setting(changelog, "unclean.leader.election.enable") == "false"
    again = cli("topics", "--check", *options)
    assert {row[2] for row in shown(again.out).values()} == {"fits"}
    assert again.code == 0


def test_the_check_names_what_is_missing_and_creates_nothing(
    cli: Cli, options: list[str], kafka: Kafka, admin: KafkaAdmin, name: Name
) -> None:
    kafka.create_topic(name("input"), 2)
    ended = cli("topics", "--check", *options)
    assert ended.code == 2
    assert f"{name('output')}, {name('dead_letter')}, {name('group')}-state-changelog is missing" in ended.err
    assert admin.partition_count(name("output")) is None


def test_an_output_topic_with_another_count_is_refused_with_the_way_out(
    cli: Cli, options: list[str], kafka: Kafka, name: Name
) -> None:
    kafka.create_topic(name("input"), 2)
    kafka.create_topic(name("output"), 4)
    ended = cli("topics", *options)
    assert ended.code == 2
    assert f"topic {name('output')} has 4 partitions, expected 2" in ended.err
    assert "use another topic name" in ended.err


def test_a_replication_factor_that_the_cluster_cannot_give_is_one_line(cli: Cli, options: list[str]) -> None:
    ended = cli("topics", "--partitions", "1", "--replication-factor", str(REPLICAS_TOO_MANY), *options)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert "creating topic" in ended.err
