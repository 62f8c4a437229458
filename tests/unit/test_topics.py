"""Which topics a worker needs and how they must be made."""

from __future__ import annotations

import pytest

from worker.config import load_settings
from worker.errors import ConfigError
from worker.topics import input_partitions, topic_plans


class Cluster:
    """Knows only how many partitions its topics have."""

    def __init__(self, **partitions: int) -> None:
        self._partitions = partitions

    def partition_count(self, topic: str) -> int | None:
        return self._partitions.get(topic)


def test_outputs_dead_letters_and_changelog_have_the_inputs_partitions() -> None:
    plans = topic_plans(Cluster(samples=6), load_settings(), 6, -1)
    assert [(plan.name, plan.partitions, plan.cleanup_policy) for plan in plans] == [
        ("samples", 6, "delete"),
        ("probabilities", 6, "delete"),
        ("samples-dead-letter", 6, "delete"),
        ("lstm-worker-state-changelog", 6, "compact"),
    ]


def test_without_a_changelog_none_is_made() -> None:
    settings = load_settings(None, ["state.changelog=false", "worker.guarantee=at_least_once"])
    assert "lstm-worker-state-changelog" not in {plan.name for plan in topic_plans(Cluster(), settings, 6, -1)}


def test_outputs_by_key_keep_the_partitions_that_they_have() -> None:
    settings = load_settings(None, ["output.partitioner=murmur2_random"])
    plans = topic_plans(Cluster(samples=6, probabilities=2), settings, 6, -1)
    assert {plan.name: plan.partitions for plan in plans}["probabilities"] == 2


def test_a_changelog_survives_a_broker_and_keeps_tombstones_for_a_week() -> None:
    changelog = topic_plans(Cluster(), load_settings(), 6, 3)[-1]
    assert changelog.replication_factor == 3
    assert changelog.properties["min.insync.replicas"] == "2"
    assert changelog.properties["unclean.leader.election.enable"] == "false"
    assert changelog.properties["delete.retention.ms"] == "604800000"


def test_fewer_than_three_replicas_do_not_wait_for_two() -> None:
    assert "min.insync.replicas" not in topic_plans(Cluster(), load_settings(), 6, 2)[-1].properties


def test_the_inputs_own_count_is_taken() -> None:
    assert input_partitions(Cluster(samples=6), load_settings(), None) == 6
    assert input_partitions(Cluster(samples=6), load_settings(), 6) == 6
    assert input_partitions(Cluster(), load_settings(), 8) == 8


def test_a_missing_input_without_a_count_is_an_error() -> None:
    with pytest.raises(ConfigError, match="input topic samples is missing: create it, or give --partitions"):
        input_partitions(Cluster(), load_settings(), None)


def test_another_count_than_the_inputs_is_an_error() -> None:
    with pytest.raises(ConfigError, match="input topic samples has 6 partitions, not 8"):
        input_partitions(Cluster(samples=6), load_settings(), 8)
