"""librdkafka's in-process broker, for the demo and for tests that need no real one."""

from __future__ import annotations

from types import TracebackType

from confluent_kafka import KafkaException, Producer

from worker.adapters.kafka_errors import translate

PARTITIONS_PER_TOPIC = 4
"""Fixed by librdkafka."""

RETENTION_BYTES_PER_PARTITION = 5 << 20
"""Fixed by librdkafka: older records go, so a producer must not run further ahead of its readers."""


class EmbeddedBroker:
    """A Kafka broker inside this process that ordinary clients of any process on this machine can reach.

    It knows produce, fetch, consumer groups (classic and KIP-848), committed offsets and list_offsets. It does not
    know create_topics (topics appear by use), metadata of committed offsets, and *not transactions*: their calls
    succeed but aborted records are read. Nothing is kept on disk.
    """

    def __init__(self, brokers: int = 1, start_timeout: float = 10.0) -> None:
        self._handle = Producer(
            {"bootstrap.servers": "", "test.mock.num.brokers": brokers, "client.id": "embedded-broker", "log_level": 0}
        )
        try:
            metadata = self._handle.list_topics(timeout=start_timeout)
        except KafkaException as error:
            raise translate(error.args[0], "starting the embedded broker") from error
        self.bootstrap_servers: str = ",".join(f"{node.host}:{node.port}" for node in metadata.brokers.values())
        """Where clients find it, `127.0.0.1:PORT`, comma-separated."""

    def close(self) -> None:
        """Stop; every topic is gone. Idempotent."""
        self._handle.close()

    def __enter__(self) -> EmbeddedBroker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
