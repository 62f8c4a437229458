"""librdkafka properties from the configuration: which are passed on, and which are refused and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_OWN_SETTING = "use {} instead"
_STEPS_ONCE = "offsets are committed with the states they belong to, or a sample would be stepped twice or never"
_ORDER = "without it a retried record may be doubled or overtake the next one"

DENIED: dict[str, str] = {
    "enable.auto.commit": _STEPS_ONCE,
    "auto.commit.enable": _STEPS_ONCE,
    "enable.auto.offset.store": _STEPS_ONCE,
    "isolation.level": "it is read_committed, or outputs of aborted transactions would be read as samples",
    "enable.idempotence": f"it is on: {_ORDER}",
    "acks": "it is all, or an acknowledged record could be lost with one broker",
    "request.required.acks": "it is all, or an acknowledged record could be lost with one broker",
    "queuing.strategy": "it is fifo: the order of a stream's samples is the order of its steps",
    "delivery.report.only.error": "the changelog's offsets come from delivery reports",
    "enable.partition.eof": "it is set where a restore needs it",
    "auto.offset.reset": "a jump would lose or repeat samples; use input.start for a group without commits",
    "transactional.id": "it is <group_id>-<member>, or two workers could fence each other; set kafka.group_instance_id",
    "partitioner": _OWN_SETTING.format("output.partitioner"),
    "partition.assignment.strategy": "it is cooperative-sticky; " + _OWN_SETTING.format("kafka.group_protocol"),
    "bootstrap.servers": _OWN_SETTING.format("kafka.bootstrap_servers"),
    "metadata.broker.list": _OWN_SETTING.format("kafka.bootstrap_servers"),
    "group.id": _OWN_SETTING.format("kafka.group_id"),
    "group.instance.id": _OWN_SETTING.format("kafka.group_instance_id"),
    "group.protocol": _OWN_SETTING.format("kafka.group_protocol"),
    "session.timeout.ms": _OWN_SETTING.format("kafka.session_timeout_ms"),
    "transaction.timeout.ms": _OWN_SETTING.format("kafka.transaction_timeout_ms"),
    "test.mock.num.brokers": "it replaces the cluster by an embedded one in every client",
}
"""Property → why it is refused."""

CLASSIC_ONLY = ("heartbeat.interval.ms", "group.protocol.type")
"""Properties that belong to the broker under the consumer group protocol."""

_MESSAGE_TIMEOUTS = ("message.timeout.ms", "delivery.timeout.ms")


def flattened(value: Any) -> Any:
    """Nested tables as dotted names: TOML reads an unquoted `sasl.password = …` as a table `sasl`."""
    return dict(_leaves(value, "")) if isinstance(value, Mapping) else value


def refusals(
    table: str, properties: Mapping[str, object], *, transaction_timeout_ms: int | None, group_protocol: str
) -> Iterator[str]:
    """One line for each property that cannot be passed on. `transaction_timeout_ms` is None without transactions."""
    for name, value in properties.items():
        if name in DENIED:
            yield f"{table}.{name} is refused: {DENIED[name]}"
        elif name.endswith("_cb") or name in ("logger", "opaque"):
            yield f"{table}.{name} is refused: it takes code, not a value"
        elif name in CLASSIC_ONLY and group_protocol == "consumer":
            yield f"{table}.{name} is refused: with kafka.group_protocol = consumer it is set on the broker"
        elif name in _MESSAGE_TIMEOUTS and not _ends_before(value, transaction_timeout_ms):
            yield (
                f"{table}.{name} is refused: it must be below kafka.transaction_timeout_ms "
                f"({transaction_timeout_ms}), or a record could outlive its transaction"
            )


def _leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _ends_before(timeout_ms: object, transaction_timeout_ms: int | None) -> bool:
    text = str(timeout_ms)
    if transaction_timeout_ms is None or not text.isdecimal():
        # What is no number is refused by librdkafka itself.
        return True
    # 0 stands for no limit.
    return 0 < int(text) < transaction_timeout_ms
