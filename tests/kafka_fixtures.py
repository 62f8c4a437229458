"""A real Apache Kafka for tests that need one.

`KAFKA_BOOTSTRAP_SERVERS` names an existing cluster; else one is started from Maven jars. Where neither can be had
the tests are skipped with the reason, except in CI, where they fail.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from tools.kafka.cluster import KafkaUnavailable, LocalKafka


@dataclass(frozen=True)
class ExistingCluster:
    """A cluster that somebody else runs."""

    bootstrap_servers: str


def _unavailable(error: KafkaUnavailable) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs a real broker: {error}")
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """One node for the whole session; has `bootstrap_servers`."""
    existing = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if existing:
        yield ExistingCluster(existing)
        return
    cluster = LocalKafka(tmp_path_factory.mktemp("kafka") / "cluster")
    try:
        cluster.start()
    except KafkaUnavailable as error:
        cluster.stop()
        _unavailable(error)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def kafka_cluster(tmp_path_factory):
    """Three nodes, replication factor 3; a LocalKafka whose nodes may be killed."""
    cluster = LocalKafka(tmp_path_factory.mktemp("kafka-cluster") / "cluster", nodes=3)
    try:
        cluster.start()
    except KafkaUnavailable as error:
        cluster.stop()
        _unavailable(error)
    yield cluster
    cluster.stop()
