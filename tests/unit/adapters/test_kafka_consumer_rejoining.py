"""A member that gets another id between two callbacks, as librdkafka's static members do; the client is scripted."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from tests.group_member import Listener
from worker.adapters import kafka_consumer
from worker.adapters.kafka_consumer import KafkaConsumer

TOPIC = "input"
Callback = Callable[[Any, list[TopicPartition]], None]


class ScriptedClient:
    """Runs the rebalances of `script` in its polls, one a poll; each sets the member id it happens under."""

    def __init__(self, properties: dict[str, object]) -> None:
        del properties
        self.member_id = ""
        self.script: list[tuple[str, str, list[int]]] = []
        self.fetched: set[int] = set()
        self._callbacks: dict[str, Callback] = {}

    def subscribe(self, topics: list[str], **callbacks: Callback) -> None:
        assert topics == [TOPIC]
        self._callbacks = callbacks

    def poll(self, timeout: float) -> None:
        del timeout
        if self.script:
            callback, self.member_id, partitions = self.script.pop(0)
            self._callbacks[callback](self, [TopicPartition(TOPIC, number) for number in partitions])

    def consumer_group_metadata(self) -> bytes:
        return struct.pack("=7si", b"CGMDv2:", 1) + f"group\0{self.member_id}\0\x01".encode()

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.fetched |= {each.partition for each in partitions}

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        assert {each.partition for each in partitions} <= self.fetched
        self.fetched -= {each.partition for each in partitions}

    def close(self) -> None:
        self.script.clear()


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> tuple[KafkaConsumer, ScriptedClient, Listener]:
    """A member "a-1" that fetches the partitions 0 and 1."""
    monkeypatch.setattr(kafka_consumer, "Consumer", ScriptedClient)
    listener = Listener()
    consumer = KafkaConsumer({"group.id": "group"}, TOPIC, listener)
    client: Any = consumer._consumer
    client.script = [("on_assign", "a-1", [0, 1])]
    consumer.poll_batch(1, 0)
    consumer.start_at({0: 0, 1: 0})
    assert listener.events == [("assigned", (0, 1))]
    listener.events.clear()
    return consumer, client, listener


Joined = tuple[KafkaConsumer, ScriptedClient, Listener]


def test_partitions_that_a_new_membership_keeps_are_lost_and_assigned_again(joined: Joined) -> None:
    consumer, client, listener = joined
    client.script = [("on_assign", "a-2", [2])]
    consumer.poll_batch(1, 0)
    assert listener.events == [("lost", (0, 1)), ("assigned", (0, 1, 2))]
    assert client.fetched == set()
    assert {consumer.assigned_to(each) for each in (0, 1, 2)} == {"a-2"}
    consumer.start_at({0: 7, 1: 7, 2: 0})
    assert client.fetched == {0, 1, 2}


def test_the_same_membership_keeps_its_partitions(joined: Joined) -> None:
    consumer, client, listener = joined
    client.script = [("on_assign", "a-1", []), ("on_assign", "a-1", [3])]
    consumer.poll_batch(1, 0)
    consumer.poll_batch(1, 0)
    assert listener.events == [("assigned", (3,))]
    assert client.fetched == {0, 1}


def test_until_the_callback_the_partitions_belong_to_the_former_membership(joined: Joined) -> None:
    consumer, client, listener = joined
    client.member_id = "a-2"
    consumer.poll_batch(1, 0)
    assert consumer.assigned_to(0) == "a-1"
    assert consumer.group_metadata().member_id == "a-2"
    assert listener.events == []


def test_what_a_new_membership_does_not_keep_is_revoked_before_the_rest_is_assigned_again(joined: Joined) -> None:
    consumer, client, listener = joined
    client.script = [("on_revoke", "a-2", [1]), ("on_assign", "a-2", [])]
    consumer.poll_batch(1, 0)
    consumer.poll_batch(1, 0)
    assert listener.events == [("revoked", (1,)), ("lost", (0,)), ("assigned", (0,))]


def test_partitions_that_were_lost_are_not_lost_twice(joined: Joined) -> None:
    consumer, client, listener = joined
    client.script = [("on_lost", "", [0, 1]), ("on_assign", "a-2", [0])]
    consumer.poll_batch(1, 0)
    consumer.poll_batch(1, 0)
    assert listener.events == [("lost", (0, 1)), ("assigned", (0,))]
