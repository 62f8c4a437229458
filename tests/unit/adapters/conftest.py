"""One embedded broker for all tests of this folder; each test has its own topic and group."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.group_member import Join, Listener
from worker.adapters.embedded_broker import EmbeddedBroker
from worker.adapters.kafka_admin import KafkaAdmin
from worker.adapters.kafka_consumer import KafkaConsumer
from worker.adapters.kafka_producer import KafkaProducer


@pytest.fixture(scope="session")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


@pytest.fixture(scope="session")
def client(broker: EmbeddedBroker) -> dict[str, object]:
    return {"bootstrap.servers": broker.bootstrap_servers, "log_level": 0}


@pytest.fixture(scope="session")
def admin(client: dict[str, object]) -> KafkaAdmin:
    return KafkaAdmin(client, timeout=5)


_numbers = itertools.count()


@pytest.fixture
def topic(admin: KafkaAdmin) -> str:
    name = f"topic-{next(_numbers)}"
    admin.touch_topics([name])
    return name


@pytest.fixture
def producer(client: dict[str, object]) -> Iterator[KafkaProducer]:
    made = KafkaProducer(client, flush_timeout=10)
    yield made
    made.close()


@pytest.fixture
def join(client: dict[str, object], topic: str) -> Iterator[Join]:
    with ExitStack() as stack:

        def make(**properties: object) -> tuple[KafkaConsumer, Listener]:
            listener = Listener()
            # Joining a classic group takes three seconds on the embedded broker.
            properties = properties or {"group.protocol": "consumer"}
            config = {**client, "group.id": topic, **properties}
            consumer = KafkaConsumer(config, topic, listener)
            stack.callback(consumer.close)
            return consumer, listener

        yield make
