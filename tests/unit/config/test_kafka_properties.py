"""What librdkafka is given, and what it must not be given."""

from __future__ import annotations

import logging

import pytest

from tests.unit.config.conftest import Write
from worker.adapters.kafka_properties import check_consumer_properties, check_producer_properties
from worker.config import load_settings
from worker.config.kafka_properties import DENIED
from worker.errors import ConfigError

LOGGER = logging.getLogger("librdkafka")


@pytest.mark.parametrize("table", ["properties", "consumer", "producer"])
@pytest.mark.parametrize("name", DENIED)
def test_a_property_that_breaks_a_guarantee_is_refused_with_its_reason_in_every_table(table: str, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, [f"kafka.{table}.{name}=1"])
    assert str(caught.value) == f"kafka.{table}.{name} is refused: {DENIED[name]}"


def test_the_refusal_of_auto_offset_reset_names_input_start() -> None:
    assert "input.start" in DENIED["auto.offset.reset"]


@pytest.mark.parametrize("timeout_ms", ["0", "15000", "300000"])
@pytest.mark.parametrize("name", ["message.timeout.ms", "delivery.timeout.ms"])
def test_a_record_must_not_outlive_its_transaction(name: str, timeout_ms: str) -> None:
    with pytest.raises(ConfigError, match=r"must be below kafka.transaction_timeout_ms \(15000\)"):
        load_settings(None, [f"kafka.producer.{name}={timeout_ms}"])


def test_a_message_timeout_below_the_transactions_is_passed_on() -> None:
    settings = load_settings(None, ["kafka.producer.message.timeout.ms=14999"])
    assert settings.producer_properties()["message.timeout.ms"] == "14999"


def test_without_transactions_any_message_timeout_is_passed_on() -> None:
    load_settings(None, ["kafka.producer.message.timeout.ms=300000", "worker.guarantee=at_least_once"])


def test_a_callback_cannot_be_configured() -> None:
    with pytest.raises(ConfigError, match=r"kafka.consumer.stats_cb is refused"):
        load_settings(None, ["kafka.consumer.stats_cb=x"])


def test_heartbeats_are_the_brokers_under_the_consumer_protocol() -> None:
    flag = "kafka.consumer.heartbeat.interval.ms=1000"
    load_settings(None, [flag])
    with pytest.raises(ConfigError, match="set on the broker"):
        load_settings(None, [flag, "kafka.group_protocol=consumer"])


def test_unquoted_dotted_names_are_the_same_properties_as_quoted_ones(write: Write) -> None:
    file = write("[kafka.properties]\nsasl.username = 'a'\n'sasl.mechanism' = 'PLAIN'\nssl.ca.location = '/ca'\n")
    assert load_settings(file).kafka.properties == {
        "sasl.username": "a",
        "sasl.mechanism": "PLAIN",
        "ssl.ca.location": "/ca",
    }


def test_a_flag_overrides_a_property_however_the_file_spells_it(write: Write) -> None:
    file = write("[kafka.properties]\nsasl.username = 'a'\n")
    assert load_settings(file, ["kafka.properties.sasl.username=b"]).kafka.properties == {"sasl.username": "b"}


def test_underscores_stand_for_dots_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTM_WORKER__KAFKA__PROPERTIES__SASL_USERNAME", "a")
    monkeypatch.setenv("LSTM_WORKER__KAFKA__PROPERTIES__LOG_LEVEL", "3")
    monkeypatch.setenv("LSTM_WORKER__KAFKA__CONSUMER", '{"check.crcs": true}')
    kafka = load_settings().kafka
    assert kafka.properties == {"sasl.username": "a", "log_level": "3"}
    assert kafka.consumer == {"check.crcs": True}


def test_a_classic_member_is_cooperative_and_sends_its_session_timeout() -> None:
    settings = load_settings(
        None, ["kafka.bootstrap_servers=a:1", "kafka.group_id=g", "kafka.consumer.check.crcs=true"]
    )
    assert settings.consumer_properties() == {
        "client.id": "lstm-worker",
        "bootstrap.servers": "a:1",
        "group.id": "g",
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 45_000,
        "check.crcs": "true",
        "logger": LOGGER,
    }


def test_a_member_of_the_consumer_protocol_leaves_both_to_the_broker() -> None:
    settings = load_settings(None, ["kafka.group_protocol=consumer", "kafka.group_instance_id=pod-3"])
    assert settings.consumer_properties() == {
        "client.id": "pod-3",
        "bootstrap.servers": "localhost:9092",
        "group.id": "lstm-worker",
        "group.protocol": "consumer",
        "group.instance.id": "pod-3",
        "logger": LOGGER,
    }


def test_a_producer_is_transactional_where_it_gets_an_id() -> None:
    settings = load_settings(None, ["kafka.producer.linger.ms=1", "kafka.properties.client.id=mine"])
    plain = {"client.id": "mine", "bootstrap.servers": "localhost:9092", "linger.ms": "1", "logger": LOGGER}
    assert settings.producer_properties() == plain
    transactional = {**plain, "transactional.id": "lstm-worker-7", "transaction.timeout.ms": 15_000}
    assert settings.producer_properties(settings.transactional_id("7")) == transactional


def test_the_instance_id_is_the_transactions_identity_where_it_is_set() -> None:
    assert load_settings(None, ["kafka.group_instance_id=pod-3"]).transactional_id("7") == "lstm-worker-pod-3"


def test_outputs_by_key_use_javas_partitioner() -> None:
    settings = load_settings(None, ["output.partitioner=murmur2_random"])
    assert settings.producer_properties()["partitioner"] == "murmur2_random"
    assert "partitioner" not in load_settings().producer_properties()


def test_properties_of_consumers_stay_with_consumers() -> None:
    settings = load_settings(None, ["kafka.consumer.check.crcs=true", "kafka.producer.linger.ms=1"])
    assert "check.crcs" not in {**settings.producer_properties(), **settings.admin_properties()}
    assert "linger.ms" not in {**settings.consumer_properties(), **settings.admin_properties()}


def test_librdkafka_accepts_what_the_settings_build() -> None:
    for flags in ([], ["kafka.group_protocol=consumer"], ["kafka.group_instance_id=a"]):
        settings = load_settings(None, flags)
        check_consumer_properties(settings.consumer_properties())
        check_producer_properties(settings.producer_properties())


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("kafka.properties.sasl.passwrd=x", 'No such configuration property: "sasl.passwrd"'),
        ("kafka.properties.security.protocol=TSL", "security.protocol"),
    ],
)
def test_what_librdkafka_does_not_know_is_one_line(flag: str, words: str) -> None:
    settings = load_settings(None, [flag])
    for check, properties in (
        (check_consumer_properties, settings.consumer_properties()),
        (check_producer_properties, settings.producer_properties()),
    ):
        with pytest.raises(ConfigError) as caught:
            check(properties)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
