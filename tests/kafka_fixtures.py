"""A real Apache Kafka for tests that need one.

`KAFKA_BOOTSTRAP_SERVERS` names an existing cluster; else one is started from Maven jars. Where Java, Maven or the jars
cannot be had the tests are skipped with the reason, except in CI, where they fail. A broker that does not start is an
error everywhere. Tests that use a real broker carry the marker `kafka`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tools.kafka.cluster import Kafka, KafkaUnavailable, LocalKafka

FIXTURES = {"kafka", "kafka_cluster"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kafka: runs on a real Apache Kafka")
    # As an interrupt, so that fixtures are torn down: a run ended by a time limit leaves no broker behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_itemcollected(item: pytest.Item) -> None:
    if FIXTURES & set(getattr(item, "fixturenames", ())):
        item.add_marker("kafka")


@contextmanager
def started(cluster: LocalKafka) -> Iterator[LocalKafka]:
    try:
        cluster.start()
    except KafkaUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs a real broker: {error}", pytrace=False)
        pytest.skip(str(error))
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One node for the whole session, or the existing cluster. Tests share it: each makes topics of its own."""
    existing = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if existing:
        yield Kafka(existing)
        return
    with started(LocalKafka(tmp_path_factory.mktemp("kafka") / "cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """Three nodes, replication factor 3, of this module alone: nodes may be killed. Never the existing cluster."""
    with started(LocalKafka(tmp_path_factory.mktemp("kafka-cluster") / "cluster", nodes=3)) as cluster:
        yield cluster
