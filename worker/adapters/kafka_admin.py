"""Questions to and changes of the cluster outside of the data path, through confluent-kafka's AdminClient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec  # type: ignore[attr-defined]  # no stub

from worker.adapters.clock import SystemClock
from worker.adapters.kafka_errors import KafkaFailed, translate
from worker.adapters.kafka_properties import RECONNECT
from worker.errors import BrokerUnreachable, ConfigError, Retriable

CleanupPolicy = Literal["delete", "compact"]

_BROKER_DEFAULT = -1
_FUTURE_MARGIN_S = 5.0
_VISIBLE_POLL_S = 0.05
"""How long to wait between two looks at topics that were just created."""
_MISSING = {KafkaError._NOENT, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION}
"""Also said of a partition whose leader is being elected."""
_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the client has no types for it
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # nor for it


@dataclass(slots=True, frozen=True)
class TopicPlan:
    """What a topic must be. `properties` are used only when it is created."""

    name: str
    partitions: int
    cleanup_policy: CleanupPolicy = "delete"
    replication_factor: int = _BROKER_DEFAULT
    """-1: the broker's default."""
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class TopicReport:
    """What was found or done."""

    name: str
    partitions: int
    created: bool


class KafkaAdmin:
    """Admin calls with one deadline, `timeout` seconds each. `config` holds librdkafka properties."""

    def __init__(self, config: Mapping[str, object], *, timeout: float = 10.0) -> None:
        self._clock = SystemClock()
        self._servers = str(config.get("bootstrap.servers", ""))
        self._timeout = timeout
        self._last_error = ""
        properties: dict[str, Any] = {**RECONNECT, **config, "error_cb": self._note_error}
        self._admin = AdminClient(properties)

    def check_reachable(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for an answer. Raises BrokerUnreachable with the last reason heard."""
        self._metadata(timeout)

    def cluster_id(self) -> str:
        """The cluster's id, "" where the broker has none."""
        return self._metadata(self._timeout).cluster_id or ""

    def partition_count(self, topic: str) -> int | None:
        """How many partitions the topic has; None when it does not exist."""
        # Asks for all topics: asking for one by name would create it where the broker allows that.
        found = self._metadata(self._timeout).topics.get(topic)
        return len(found.partitions) if found is not None and found.error is None else None

    def topic_id(self, topic: str) -> str:
        """The topic's id, which changes when it is created anew; "" where the broker does not tell it."""
        try:
            answers = self._admin.describe_topics(TopicCollection([topic]), request_timeout=self._timeout)
            description = self._result(answers[topic], f"describing topic {topic}")
        except Retriable:
            # The embedded broker has no controller and never answers.
            return ""
        return str(description.topic_id or "")

    def touch_topics(self, topics: Sequence[str]) -> None:
        """Make topics appear by asking for them: for the embedded broker, which cannot create them otherwise."""
        for topic in topics:
            try:
                self._admin.list_topics(topic, timeout=self._timeout)
            except KafkaException as error:
                raise translate(error.args[0], f"asking for topic {topic}") from error

    def ensure_topics(self, plans: Sequence[TopicPlan]) -> list[TopicReport]:
        """Create what is missing and check what exists. Raises ConfigError for a topic that cannot be used as it is.

        All existing topics are checked before anything is created.
        """
        counts = {plan.name: self.partition_count(plan.name) for plan in plans}
        existing = [plan for plan in plans if counts[plan.name] is not None]
        self._check_partitions(existing, counts)
        self._check_cleanup_policies(existing)
        missing = [plan for plan in plans if counts[plan.name] is None]
        self._create(missing)
        return [TopicReport(plan.name, plan.partitions, counts[plan.name] is None) for plan in plans]

    def start_offsets(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        """Low watermarks: the first offsets that are still in the log."""
        return self._offsets(topic, partitions, _EARLIEST, IsolationLevel.READ_UNCOMMITTED)

    def end_offsets(self, topic: str, partitions: Sequence[int], *, read_committed: bool) -> dict[int, int]:
        """Exclusive ends: with `read_committed` the last stable offsets, without the high watermarks."""
        isolation = IsolationLevel.READ_COMMITTED if read_committed else IsolationLevel.READ_UNCOMMITTED
        return self._offsets(topic, partitions, _LATEST, isolation)

    def offsets_at(self, topic: str, partitions: Sequence[int], timestamp_ms: int) -> dict[int, int | None]:
        """First offsets whose record is at or after the timestamp; None where every record is older."""
        spec = OffsetSpec.for_timestamp(timestamp_ms)
        found = self._offsets(topic, partitions, spec, IsolationLevel.READ_UNCOMMITTED)
        return {partition: offset if offset >= 0 else None for partition, offset in found.items()}

    def group_members(self, group: str) -> list[str]:
        """Client ids and hosts of the group's members; a static member stays one until its session timeout."""
        answers = self._admin.describe_consumer_groups([group], request_timeout=self._timeout)
        description = self._result(answers[group], f"describing group {group}")
        return [f"{member.group_instance_id or member.client_id} at {member.host}" for member in description.members]

    def _metadata(self, timeout: float) -> Any:
        try:
            return self._admin.list_topics(timeout=timeout)
        except KafkaException as error:
            self._admin.poll(0)
            translated = translate(error.args[0], "asking the cluster")
            if not isinstance(translated, Retriable):
                raise translated from error
            reason = f" ({self._last_error})" if self._last_error else ""
            raise BrokerUnreachable(
                f"no broker answered at {self._servers} within {timeout:g} s{reason}", "check kafka.bootstrap_servers"
            ) from error

    def _check_partitions(self, plans: Sequence[TopicPlan], counts: Mapping[str, int | None]) -> None:
        for plan in plans:
            if counts[plan.name] != plan.partitions:
                raise ConfigError(
                    f"topic {plan.name} has {counts[plan.name]} partitions, expected {plan.partitions}",
                    "outputs, dead letters and changelog need the input's count: use another topic name",
                )

    def _check_cleanup_policies(self, plans: Sequence[TopicPlan]) -> None:
        if not plans:
            return
        resources = [ConfigResource(ConfigResource.Type.TOPIC, plan.name) for plan in plans]
        answers = self._admin.describe_configs(resources, request_timeout=self._timeout)
        for plan, resource in zip(plans, resources, strict=True):
            entries = self._result(answers[resource], f"reading the configuration of topic {plan.name}")
            actual = entries["cleanup.policy"].value
            if plan.cleanup_policy == "compact" and actual != "compact":
                raise ConfigError(
                    f"topic {plan.name} has cleanup.policy={actual}, which deletes states",
                    "set cleanup.policy=compact on it",
                )
            if plan.cleanup_policy == "delete" and "compact" in actual:
                raise ConfigError(
                    f"topic {plan.name} has cleanup.policy={actual}, which drops records",
                    "set cleanup.policy=delete on it",
                )

    def topic_setting(self, topic: str, name: str) -> str:
        """One entry of a topic's configuration, as the broker gives it."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        answer = self._admin.describe_configs([resource], request_timeout=self._timeout)[resource]
        return str(self._result(answer, f"reading the configuration of topic {topic}")[name].value)

    def _create(self, plans: Sequence[TopicPlan]) -> None:
        if not plans:
            return
        new_topics = [
            NewTopic(
                plan.name,
                num_partitions=plan.partitions,
                replication_factor=plan.replication_factor,
                config={**plan.properties, "cleanup.policy": plan.cleanup_policy},
            )
            for plan in plans
        ]
        answers = self._admin.create_topics(new_topics, request_timeout=self._timeout)
        for plan in plans:
            try:
                self._result(answers[plan.name], f"creating topic {plan.name}")
            except KafkaFailed as error:
                # The broker refuses what was asked for: a replication factor, a name, a policy.
                raise ConfigError(str(error), "create the topic by hand or change its settings") from error
        self._await_visible([plan.name for plan in plans])

    def _await_visible(self, topics: Sequence[str]) -> None:
        """The controller creates topics; the brokers, which everybody asks, hear of them a moment later."""
        deadline = self._clock.monotonic() + self._timeout
        resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
        while True:
            try:
                for resource, answer in self._admin.describe_configs(resources).items():
                    self._result(answer, f"reading the configuration of topic {resource.name}")
            except ConfigError:
                if self._clock.monotonic() >= deadline:
                    raise
                self._admin.poll(_VISIBLE_POLL_S)
            else:
                return

    def _offsets(
        self, topic: str, partitions: Sequence[int], spec: OffsetSpec, isolation: IsolationLevel
    ) -> dict[int, int]:
        if not partitions:
            return {}
        asked = {TopicPartition(topic, partition): spec for partition in partitions}
        answers = self._admin.list_offsets(asked, isolation_level=isolation, request_timeout=self._timeout)
        return {
            asked_for.partition: self._offset(answer, topic, asked_for.partition)
            for asked_for, answer in answers.items()
        }

    def _offset(self, future: Future[Any], topic: str, partition: int) -> int:
        doing = f"reading offsets of {topic}[{partition}]"
        try:
            return int(future.result(self._timeout + _FUTURE_MARGIN_S).offset)
        except KafkaException as error:
            # After a leader moved the client asks the former one, for ever, until it asks for the cluster's state.
            count = self.partition_count(topic)
            exists = count is not None and partition < count
            if error.args[0].code() in _MISSING and exists:
                raise Retriable(f"{doing}: no leader at the moment") from error
            if error.args[0].code() == KafkaError._NOENT:
                raise _topic_missing(doing) from error
            raise translate(error.args[0], doing) from error

    def _result(self, future: Future[Any], doing: str) -> Any:
        try:
            return future.result(self._timeout + _FUTURE_MARGIN_S)
        except KafkaException as error:
            if error.args[0].code() == KafkaError._NOENT:
                raise _topic_missing(doing) from error
            raise translate(error.args[0], doing) from error

    def _note_error(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._last_error = error.str()


def _topic_missing(doing: str) -> ConfigError:
    return ConfigError(f"{doing}: topic or partition missing", "run `lstm-worker topics`")
