"""Reads partitions of the changelog topic for restores, through a consumer without a group's duties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from worker.adapters.kafka_errors import translate, translate_consumed
from worker.adapters.kafka_properties import RECONNECT
from worker.errors import Retriable

DEFAULTS: dict[str, object] = {
    "fetch.wait.max.ms": 20,
    "fetch.queue.backoff.ms": 20,
    # Rows are read once and in order; large fetches make restores two to three times faster (measured).
    "max.partition.fetch.bytes": 8 << 20,
    "fetch.max.bytes": 64 << 20,
    "queued.min.messages": 200_000,
    "queued.max.messages.kbytes": 128 << 10,
    **RECONNECT,
}
FORCED: dict[str, object] = {
    "group.id": "lstm-worker-restore",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    # librdkafka's default is false; a restore is where a damaged record would become state.
    "check.crcs": True,
}
RECORDS_MAX = 10_000


@dataclass(slots=True)
class ChangelogBatch:
    """Rows of one partition in order; `position` is the next offset to read, markers and gaps passed."""

    position: int
    offsets: list[int] = field(default_factory=list)
    rows: list[tuple[bytes, bytes | None]] = field(default_factory=list)


class KafkaChangelogReader:
    """Any number of partitions at once; each is begun at an offset and ended by the caller."""

    def __init__(self, config: Mapping[str, object], topic: str) -> None:
        self._topic = topic
        self._consumer = Consumer({**DEFAULTS, **config, **FORCED})

    def begin(self, partition: int, offset: int) -> None:
        """Begin to read a partition's committed rows at `offset`."""
        self._consumer.incremental_assign([TopicPartition(self._topic, partition, offset)])

    def end(self, partition: int) -> None:
        """Stop reading a partition."""
        self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])

    def read(self, timeout: float) -> dict[int, ChangelogBatch]:
        """What arrived, by partition; waits up to `timeout` seconds for the first.

        Raises what Kafka reports and does not try again by itself: rows may be lost with it, so nobody reads on then.

        An end of partition is the last stable offset: with a transaction open below the target it is not the end yet.
        """
        try:
            first = self._consumer.poll(timeout)
            messages = [] if first is None else [first, *self._consumer.consume(RECORDS_MAX - 1, 0)]
        except KafkaException as error:
            raise translate(error.args[0], f"restoring from {self._topic}") from error
        batches: dict[int, ChangelogBatch] = {}
        for message in messages:
            self._add(batches, message)
        return batches

    def _add(self, batches: dict[int, ChangelogBatch], message: Message) -> None:
        partition, offset, error = message.partition() or 0, message.offset() or 0, message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                batches.setdefault(partition, ChangelogBatch(offset)).position = offset
                return
            translated = translate_consumed(error, self._topic, partition, offset)
            if not isinstance(translated, Retriable):
                raise translated
            # The client tries again by itself; raised, it would take the rows read with it away.
            return
        batch = batches.setdefault(partition, ChangelogBatch(offset))
        batch.position = offset + 1
        batch.offsets.append(offset)
        value = message.value()
        batch.rows.append((bytes(message.key() or b""), None if value is None else bytes(value)))

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()
