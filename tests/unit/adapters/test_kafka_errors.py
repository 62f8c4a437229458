"""Which of our errors each kind of Kafka's becomes."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from worker.adapters.kafka_errors import (
    KafkaFailed,
    translate,
    translate_consumed,
    translate_produced,
    translate_transactional,
)
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


def made(code: int, *, fatal: bool = False, retriable: bool = False, aborts: bool = False) -> KafkaError:
    return KafkaError(code, "reason", fatal, retriable, aborts)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (made(KafkaError._FENCED, fatal=True), Fenced),
        (made(KafkaError.FENCED_INSTANCE_ID, aborts=True), Fenced),
        (made(KafkaError.ILLEGAL_GENERATION, aborts=True), TransactionAborted),
        (made(KafkaError.UNKNOWN_MEMBER_ID, aborts=True), TransactionAborted),
        (made(KafkaError._INCONSISTENT, aborts=True), TransactionAborted),
        (made(KafkaError.OFFSET_METADATA_TOO_LARGE, aborts=True), TransactionAborted),
        (made(KafkaError._TIMED_OUT, aborts=True), TransactionAborted),
        (made(KafkaError._TIMED_OUT, retriable=True), Retriable),
        (made(KafkaError._CONFLICT, retriable=True), Retriable),
        # The group has no say here: without a flag even a code that is harmless elsewhere leaves the outcome open.
        (made(KafkaError._TIMED_OUT), OutcomeUnknown),
        (made(KafkaError._STATE, fatal=True), OutcomeUnknown),
        (made(KafkaError._FATAL, fatal=True), OutcomeUnknown),
        (made(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, fatal=True), NotAuthorized),
        (made(KafkaError.INVALID_TRANSACTION_TIMEOUT, fatal=True), TransactionTimeoutRefused),
        (made(KafkaError.UNSUPPORTED_VERSION, fatal=True), BrokerTooOld),
    ],
)
def test_transactional_calls(error: KafkaError, expected: type[WorkerError]) -> None:
    assert type(translate_transactional(error, "committing")) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError.ILLEGAL_GENERATION, Retriable),
        (KafkaError.REBALANCE_IN_PROGRESS, Retriable),
        (KafkaError.STALE_MEMBER_EPOCH, Retriable),
        (KafkaError.UNSTABLE_OFFSET_COMMIT, Retriable),
        (KafkaError._TIMED_OUT, Retriable),
        (KafkaError.UNRELEASED_INSTANCE_ID, Fenced),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, NotAuthorized),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, ConfigError),
        (KafkaError.UNKNOWN, KafkaFailed),
    ],
)
def test_other_calls(code: int, expected: type[WorkerError]) -> None:
    assert type(translate(made(code), "committing offsets")) is expected


def test_a_fatal_error_about_the_instance_id_is_a_fencing_even_where_it_does_not_say_fatal() -> None:
    error = KafkaError(KafkaError._FATAL, "Fatal error: UNRELEASED_INSTANCE_ID: the instance ID is still used")
    assert type(translate_consumed(error, "samples", None, None)) is Fenced


def test_an_offset_out_of_range_names_partition_and_offset() -> None:
    translated = translate_consumed(made(KafkaError._AUTO_OFFSET_RESET), "samples", 3, 99)
    assert isinstance(translated, PositionOutOfRange)
    assert (translated.topic, translated.partition, translated.offset) == ("samples", 3, 99)


def test_a_missing_topic_names_the_command_that_makes_it() -> None:
    translated = translate_consumed(made(KafkaError.UNKNOWN_TOPIC_OR_PART), "samples", None, None)
    assert str(translated) == "topic samples is missing: create it, or run `lstm-worker topics`"
    assert isinstance(translated, ConfigError)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, r"out\[1\] was not delivered: MSG_SIZE_TOO_LARGE"),
        (KafkaError._UNKNOWN_PARTITION, r"out\[1\] was not delivered: _UNKNOWN_PARTITION.*lstm-worker topics"),
        (KafkaError._MSG_TIMED_OUT, r"out\[1\] was not delivered: _MSG_TIMED_OUT"),
    ],
)
def test_an_undelivered_record_names_topic_partition_and_reason(code: int, text: str) -> None:
    with pytest.raises(ProduceFailed, match=text):
        raise translate_produced(made(code), "out", 1)
