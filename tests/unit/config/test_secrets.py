"""Secrets come by reference and are never shown."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.unit.config.conftest import Write
from worker.config import Settings, effective_toml, load_settings
from worker.config.secrets import MASK, is_secret
from worker.errors import ConfigError


def test_a_secret_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "hunter2")
    settings = load_settings(None, ["kafka.properties.sasl.password=${env:KAFKA_PASSWORD}"])
    assert settings.kafka.properties["sasl.password"] == "hunter2"


def test_a_secret_is_read_from_a_file_without_the_line_break_at_its_end(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    settings = load_settings(None, [f"kafka.properties.sasl.password=${{file:{secret}}}"])
    assert settings.kafka.properties["sasl.password"] == "hunter2"


def test_a_reference_may_be_part_of_any_text(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    monkeypatch.setenv("MODELS", "/models")
    assert load_settings(write("[model]\npath = '${env:MODELS}/a.keras'\n")).model.path == "/models/a.keras"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("${env:NOT_SET_ANYWHERE}", "environment variable NOT_SET_ANYWHERE is not set"),
        ("${file:/nowhere/password}", "/nowhere/password cannot be read (No such file or directory)"),
        ("${vault:password}", "${vault:password} is no reference"),
    ],
)
def test_a_reference_that_leads_nowhere_names_the_setting(reference: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, [f"kafka.properties.sasl.password={reference}"])
    assert str(caught.value).startswith(f"kafka.properties.sasl.password: {words}")


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.password",
        "ssl.key.pem",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
    ],
)
def test_passwords_secrets_tokens_and_key_material_are_secret(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["ssl.key.location", "sasl.oauthbearer.token.endpoint.url", "sasl.username", "client.id", "ssl.ca.pem"]
)
def test_names_paths_and_addresses_are_not_secret(name: str) -> None:
    assert not is_secret(name)


def test_the_printed_configuration_masks_secrets() -> None:
    printed = effective_toml(load_settings(None, ["kafka.properties.sasl.password=hunter2"]))
    assert "hunter2" not in printed
    assert tomllib.loads(printed)["kafka"]["properties"]["sasl.password"] == MASK


def test_the_printed_configuration_shows_references_as_they_were_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "hunter2")
    printed = effective_toml(load_settings(None, ["kafka.properties.sasl.password=${env:KAFKA_PASSWORD}"]))
    assert tomllib.loads(printed)["kafka"]["properties"]["sasl.password"] == "${env:KAFKA_PASSWORD}"


def test_a_value_that_came_by_reference_is_not_printed_whatever_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANY", "hunter2")
    assert "hunter2" not in effective_toml(load_settings(None, ["kafka.properties.client.rack=${env:ANY}"]))


def test_a_secret_of_the_wrong_type_is_not_repeated_in_the_error(write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write("[kafka.properties]\n'sasl.password' = ['hunter2']\n"))
    assert "hunter2" not in str(caught.value)


def test_the_representation_of_settings_shows_no_property() -> None:
    assert "hunter2" not in repr(load_settings(None, ["kafka.properties.sasl.password=hunter2"]))


def test_the_printed_configuration_configures_the_same(write: Write) -> None:
    flags = ["input.features=x,ü", "kafka.consumer.check.crcs=true", 'model.path=a "b" \\ \x7f\n😀', "http.port=0"]
    older = '["a.keras", {"path": "b \\"c\\".keras", "length": 0, "calibration": "d.json"}]'
    settings = load_settings(None, [*flags, "model.on_change=finish", f"model.previous={older}"])
    assert load_settings(write(effective_toml(settings))) == settings


def test_every_setting_is_printed_with_its_meaning() -> None:
    printed = effective_toml(load_settings())
    for section in Settings.model_fields:
        for key, field in type(getattr(Settings(), section)).model_fields.items():
            assert field.description, f"{section}.{key} has no description"
            assert isinstance(getattr(getattr(Settings(), section), key), dict) or f"# {field.description}" in printed
