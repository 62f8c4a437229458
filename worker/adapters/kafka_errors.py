"""The only table from librdkafka's error codes to the worker's errors.

librdkafka says three things of an error: a code, and for transactional calls whether the same call may be tried again
or the transaction must be aborted. Codes are compared, because `fatal()` is not set on errors that arrive as messages.
"""

from __future__ import annotations

from confluent_kafka import KafkaError

from worker.errors import (
    BrokerTooOld,
    ConfigError,
    Fenced,
    NotAuthorized,
    OutcomeUnknown,
    PositionOutOfRange,
    ProduceFailed,
    Retriable,
    TransactionAborted,
    TransactionTimeoutRefused,
    WorkerError,
)


class KafkaFailed(WorkerError):
    """Raised when Kafka reports something that no other error of the worker stands for; an operating fault."""


_FENCED = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.UNRELEASED_INSTANCE_ID,
}

_RETRIABLE = {
    # A rebalance is under way: the commit may succeed after it, if the partition is still ours.
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.FENCED_MEMBER_EPOCH,
    KafkaError._ASSIGNMENT_LOST,
    # The group coordinator moves or starts.
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError._WAIT_COORD,
    # A transaction of the partition's former owner has not ended.
    KafkaError.UNSTABLE_OFFSET_COMMIT,
    KafkaError.CONCURRENT_TRANSACTIONS,
    # The network, or a broker that restarts.
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.BROKER_NOT_AVAILABLE,
    # A leader moves: the new one does not know the log's end at once, and clients do not know the new one.
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError._DESTROY_BROKER,
    KafkaError._RETRY,
    KafkaError._IN_PROGRESS,
    KafkaError._PREV_IN_PROGRESS,
}

_REFUSED: dict[int, tuple[type[ConfigError], str]] = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: (
        NotAuthorized,
        "grant this user READ on the input and WRITE on the output topics",
    ),
    KafkaError.GROUP_AUTHORIZATION_FAILED: (
        NotAuthorized,
        "grant this user READ on the consumer group kafka.group_id",
    ),
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (
        NotAuthorized,
        "grant this user WRITE on transactional ids that begin with kafka.group_id",
    ),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: (NotAuthorized, "grant this user IDEMPOTENT_WRITE on the cluster"),
    KafkaError._AUTHENTICATION: (NotAuthorized, "check the SASL settings in [kafka.properties]"),
    KafkaError.SASL_AUTHENTICATION_FAILED: (NotAuthorized, "check the SASL settings in [kafka.properties]"),
    KafkaError.INVALID_TRANSACTION_TIMEOUT: (
        TransactionTimeoutRefused,
        "lower kafka.transaction_timeout_ms or raise the broker's transaction.max.timeout.ms",
    ),
    KafkaError.UNSUPPORTED_VERSION: (BrokerTooOld, "the broker is too old for this setting; use a newer broker"),
    KafkaError._UNSUPPORTED_FEATURE: (BrokerTooOld, "the broker is too old for this setting; use a newer broker"),
}

_MEMBER_FENCED = (
    "another worker with the same kafka.group_instance_id is running, or the group's coordinator moved while this one "
    "joined; started again it joins anew"
)
_TRANSACTION_FENCED = (
    "another worker with the same transactional id took over, or the broker ended a transaction that was open for "
    "longer than kafka.transaction_timeout_ms; the worker restarts from the committed state"
)

_TOPIC_MISSING = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}

_REFUSED_LOCALLY = _TOPIC_MISSING | {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._UNKNOWN_PARTITION}
"""The record was never sent and would be refused again: neither an abort nor a new producer helps."""

SUSPICIOUS = frozenset(
    {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, KafkaError.REQUEST_TIMED_OUT}
)
"""Codes after which a request may still be on its way; a transactional producer that saw one is replaced."""


def translate(error: KafkaError, doing: str) -> WorkerError:
    """What a failed call means that is not part of a transaction. `doing` begins the sentence."""
    code = error.code()
    if code in _FENCED or (code == KafkaError._FATAL and "instance" in error.str()):
        return Fenced(f"{doing}: {error.str()}", _MEMBER_FENCED)
    if code in _REFUSED:
        refusal, hint = _REFUSED[code]
        return refusal(f"{doing}: {error.str()}", hint)
    if code in _TOPIC_MISSING:
        return ConfigError(f"{doing}: topic or partition missing", "run `lstm-worker topics`")
    if code in _RETRIABLE:
        return Retriable(f"{doing}: {error.name()}: {error.str()}")
    return KafkaFailed(f"{doing}: {error.name()}: {error.str()}")


def translate_consumed(error: KafkaError, topic: str, partition: int | None, offset: int | None) -> WorkerError:
    """What an error that arrived in place of a record means."""
    if error.code() == KafkaError._AUTO_OFFSET_RESET:
        return PositionOutOfRange(topic, -1 if partition is None else partition, -1 if offset is None else offset)
    if error.code() in _TOPIC_MISSING:
        return ConfigError(f"topic {topic} is missing", "create it, or run `lstm-worker topics`")
    return translate(error, f"consuming {topic}")


def translate_produced(error: KafkaError, topic: str, partition: int | None) -> WorkerError:
    """What a record that was refused or not delivered means outside of a transaction."""
    code = error.code()
    if code in _FENCED or code in _REFUSED:
        return translate(error, f"producing to {topic}")
    where = f"{topic}[{partition}]" if partition is not None and partition >= 0 else topic
    if code == KafkaError.MSG_SIZE_TOO_LARGE:
        reason = "MSG_SIZE_TOO_LARGE: the record is larger than message.max.bytes allows"
    elif code in _TOPIC_MISSING or code == KafkaError._UNKNOWN_PARTITION:
        reason = f"{error.name()}: topic or partition missing, run `lstm-worker topics`"
    else:
        reason = f"{error.name()}: {error.str()}"
    return ProduceFailed(f"record for {where} was not delivered: {reason}")


def translate_transactional_produced(error: KafkaError, topic: str) -> WorkerError:
    """What a record that `produce` refused means inside a transaction."""
    if error.code() in _REFUSED_LOCALLY:
        return translate_produced(error, topic, None)
    return translate_transactional(error, f"producing to {topic}")


def translate_transactional(error: KafkaError, doing: str) -> WorkerError:
    """What a failed transactional call means; anything not known to be harmless leaves the outcome open."""
    code = error.code()
    if code in _FENCED:
        return Fenced(f"{doing}: {error.str()}", _TRANSACTION_FENCED)
    if code in _REFUSED:
        refusal, hint = _REFUSED[code]
        return refusal(f"{doing}: {error.str()}", hint)
    text = f"{doing}: {error.name()}: {error.str()}"
    if error.txn_requires_abort():
        return TransactionAborted(text)
    if error.retriable():
        return Retriable(text)
    return OutcomeUnknown(text)
