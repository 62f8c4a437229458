"""A reader of a topic's partitions without a group: for the demo, `watch`, and tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, Message, TopicPartition

from worker.adapters.kafka_errors import translate_consumed
from worker.core.types import Headers

RECORDS_MAX = 10_000


@dataclass(slots=True, frozen=True)
class FollowedRecord:
    """One record of the topic."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Follower:
    """Reads committed records of the given partitions, from the beginning or from now on."""

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        partitions: Iterable[int],
        *,
        from_end: bool = False,
        properties: dict[str, object] | None = None,
    ) -> None:
        self._topic = topic
        self._consumer = Consumer(
            {
                **(properties or {}),
                "bootstrap.servers": bootstrap_servers,
                # Required by the client; nothing is ever committed.
                "group.id": "lstm-worker-follower",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
                "enable.partition.eof": True,
            }
        )
        self.at_end: set[int] = set()
        """Partitions whose (stable) end was met after their last record."""
        start = OFFSET_END if from_end else OFFSET_BEGINNING
        self._consumer.assign([TopicPartition(topic, partition, start) for partition in partitions])

    def poll(self, timeout: float) -> list[FollowedRecord]:
        """The records that are there, after waiting up to `timeout` seconds for the first."""
        first = self._consumer.poll(timeout)
        if first is None:
            return []
        messages = [first, *self._consumer.consume(RECORDS_MAX - 1, 0)]
        return [self._record(message) for message in messages if not self._failed(message)]

    def _failed(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            self.at_end.discard(message.partition() or 0)
            return False
        if error.code() == KafkaError._PARTITION_EOF:
            self.at_end.add(message.partition() or 0)
            return True
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART or error.fatal():
            raise translate_consumed(error, self._topic, message.partition(), message.offset())
        return True

    @staticmethod
    def _record(message: Message) -> FollowedRecord:
        return FollowedRecord(
            message.partition() or 0,
            message.offset() or 0,
            message.timestamp()[1],
            message.key(),
            message.value(),
            list(message.headers() or []),  # type: ignore[arg-type]  # never the dictionary of the stubs
        )

    def close(self) -> None:
        """Disconnect; idempotent in the client library."""
        self._consumer.close()
