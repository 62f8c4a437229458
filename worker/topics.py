"""What the worker's topics must be like, from the settings and the input's partition count."""

from __future__ import annotations

from typing import Protocol

from worker.adapters.kafka_admin import TopicPlan
from worker.config import Settings
from worker.errors import ConfigError

DAY_MS = 24 * 60 * 60 * 1000

CHANGELOG_PROPERTIES = {
    "unclean.leader.election.enable": "false",
    # The active segment is never compacted: small and short-lived ones keep restores short.
    "segment.bytes": str(64 << 20),
    "segment.ms": str(60 * 60 * 1000),
    "min.cleanable.dirty.ratio": "0.2",
    # A worker's disk that was away for longer could bring deleted streams back, so tombstones stay for a week.
    "delete.retention.ms": str(7 * DAY_MS),
}

REPLICAS_FOR_TWO_IN_SYNC = 3
"""From this replication factor on a write waits for two replicas; below, one broker's absence would stop the worker."""


class Cluster(Protocol):
    """What must be asked of the cluster."""

    def partition_count(self, topic: str) -> int | None:
        """None where the topic does not exist."""


def input_partitions(cluster: Cluster, settings: Settings, wanted: int | None) -> int:
    """The input's partition count, `wanted` where it is missing. Raises ConfigError where neither or both disagree."""
    topic = settings.topics.input
    found = cluster.partition_count(topic)
    if found is None and wanted is None:
        raise ConfigError(f"input topic {topic} is missing", "create it, or give --partitions")
    if found is not None and wanted is not None and found != wanted:
        raise ConfigError(
            f"input topic {topic} has {found} partitions, not {wanted}",
            "leave --partitions out: with another count streams and their states would part",
        )
    return found if found is not None else wanted or 0


def topic_plans(cluster: Cluster, settings: Settings, partitions: int, replication_factor: int) -> list[TopicPlan]:
    """All topics of this worker: input, output, dead letters and, where it is on, the changelog."""
    topics = settings.topics
    outputs = partitions
    if settings.output.partitioner != "input":
        # Written by key: whatever count is there will do.
        outputs = cluster.partition_count(topics.output) or partitions
    plans = [
        TopicPlan(topics.input, partitions, replication_factor=replication_factor),
        TopicPlan(topics.output, outputs, replication_factor=replication_factor),
        TopicPlan(topics.dead_letter, partitions, replication_factor=replication_factor),
    ]
    if settings.state.changelog:
        properties = dict(CHANGELOG_PROPERTIES)
        if replication_factor >= REPLICAS_FOR_TWO_IN_SYNC:
            properties["min.insync.replicas"] = "2"
        plans.append(TopicPlan(settings.changelog_topic, partitions, "compact", replication_factor, properties))
    return plans
