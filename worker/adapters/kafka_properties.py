"""librdkafka's own opinion of the properties that it is given, before any client is used."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, Producer, libversion

from worker.errors import ConfigError

RECONNECT: dict[str, object] = {"reconnect.backoff.max.ms": 1_000}
"""By default librdkafka waits up to 10 s between two attempts: as long as a short transaction may last in all."""


def library_version() -> str:
    """The version of librdkafka that is loaded."""
    return str(libversion()[0])


def check_consumer_properties(properties: Mapping[str, object]) -> None:
    """Raises ConfigError with librdkafka's reason for an unknown name or an unusable value; connects to nothing."""
    try:
        Consumer(_offline(properties)).close()
    except KafkaException as error:
        raise _refused(error) from error


def check_producer_properties(properties: Mapping[str, object]) -> None:
    """As `check_consumer_properties`."""
    try:
        Producer(_offline(properties)).close()
    except KafkaException as error:
        raise _refused(error) from error


def _offline(properties: Mapping[str, object]) -> dict[str, object]:
    rest = {name: value for name, value in properties.items() if name != "bootstrap.servers"}
    # Without servers there is nothing to connect to, and librdkafka would say so on standard error.
    return {**rest, "log_level": 0}


def _refused(error: KafkaException) -> ConfigError:
    return ConfigError(
        f"librdkafka: {error.args[0].str()}", "correct kafka.properties, kafka.consumer or kafka.producer"
    )
