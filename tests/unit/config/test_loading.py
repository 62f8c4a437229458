"""Where settings come from, which source wins, and what a mistake looks like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.config.conftest import Write
from worker.config import load_settings
from worker.config.loading import PASS_THROUGH, known_paths
from worker.errors import ConfigError


def mistakes(file: Path | None = None, *flags: str) -> list[str]:
    """The lines of the error that these settings cause."""
    with pytest.raises(ConfigError) as caught:
        load_settings(file, flags)
    return str(caught.value).splitlines()


def test_defaults_are_the_documented_ones() -> None:
    settings = load_settings()
    assert settings.kafka.bootstrap_servers == "localhost:9092"
    assert settings.kafka.session_timeout_ms == 45_000
    assert settings.kafka.transaction_timeout_ms == 15_000
    assert (settings.topics.input, settings.topics.output) == ("samples", "probabilities")
    assert settings.topics.dead_letter == "samples-dead-letter"
    assert settings.changelog_topic == "lstm-worker-state-changelog"
    assert (settings.model.path, settings.model.engine, settings.model.on_change) == ("model.keras", "auto", "refuse")
    assert (settings.input.format, settings.input.max_bytes, settings.input.start) == ("json", 1_000_000, "earliest")
    assert settings.input.max_future_ms == 3_600_000
    assert (settings.sequence.length, settings.sequence.idle_timeout_ms, settings.sequence.on_gap) == (0, 0, "taint")
    assert settings.state.cache_bytes == 536_870_912
    assert settings.worker.guarantee == "exactly_once"
    assert (settings.worker.commit_interval_ms, settings.worker.batch_records) == (100, 4096)
    assert (settings.http.bind, settings.http.port) == ("127.0.0.1", 9464)


def test_a_file_wins_over_defaults_the_environment_over_the_file_and_a_flag_over_all(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write("[http]\nport = 1\nbind = '10.0.0.1'\n[worker]\nbatch_records = 1\ncommit_interval_ms = 7\n")
    monkeypatch.setenv("LSTM_WORKER__HTTP__PORT", "2")
    monkeypatch.setenv("LSTM_WORKER__WORKER__BATCH_RECORDS", "2")
    settings = load_settings(file, ["worker.batch_records=3"])
    assert settings.worker.commit_interval_ms == 7
    assert settings.http.bind == "10.0.0.1"
    assert settings.http.port == 2
    assert settings.worker.batch_records == 3


def test_of_two_flags_for_one_setting_the_later_wins() -> None:
    assert load_settings(None, ["http.port=1", "http.port=2"]).http.port == 2


@pytest.mark.parametrize("path", [path for path in known_paths() if not path.endswith(PASS_THROUGH)])
def test_every_setting_is_read_from_its_environment_name(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    section, key = path.split(".")
    number = "60000"
    monkeypatch.setenv(f"LSTM_WORKER__{section.upper()}__{key.upper()}", number)
    try:
        value = str(getattr(getattr(load_settings(), section), key))
    except ConfigError as error:
        value = str(error)
    # Where the number is no good it is refused under the setting's own name.
    assert value in (number, f"['{number}']") or (value.startswith(path) and "not a setting" not in value)


def test_a_table_in_the_environment_that_is_not_json_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTM_WORKER__KAFKA__CONSUMER", "check.crcs=true")
    (line,) = mistakes()
    assert line.startswith("LSTM_WORKER__KAFKA__CONSUMER: a table is written as JSON")


@pytest.mark.parametrize("given", ['["x", "y"]', "x,y", " x , y "])
def test_a_list_in_the_environment_is_json_or_names_with_commas(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTM_WORKER__INPUT__FEATURES", given)
    assert load_settings().input.features == ["x", "y"]


@pytest.mark.parametrize(
    "given",
    [
        '["a.keras", {"path": "b.keras", "length": 9, "mode": "buffer"}]',
        '[{"path": "a.keras"}, {"path": "b.keras", "length": "9", "mode": "buffer"}]',
    ],
)
def test_older_models_are_paths_or_tables(given: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [("a.keras", None, None), ("b.keras", 9, "buffer")]

    def found(*arguments: Any) -> list[tuple[str, int | None, str | None]]:
        return [(each.path, each.length, each.mode) for each in load_settings(*arguments).model.previous]

    monkeypatch.setenv("LSTM_WORKER__MODEL__ON_CHANGE", "finish")
    tables = "[[model.previous]]\npath = 'a.keras'\n[[model.previous]]\npath = 'b.keras'\nlength = 9\nmode = 'buffer'\n"
    assert found(write(tables)) == expected
    inline = '[model]\nprevious = ["a.keras", {path = "b.keras", length = 9, mode = "buffer"}]\n'
    assert found(write(inline)) == expected
    assert found(None, [f"model.previous={given}"]) == expected
    monkeypatch.setenv("LSTM_WORKER__MODEL__PREVIOUS", given)
    assert found() == expected
    assert found(None, ['model.previous={"path": "c.keras", "length": 0}']) == [("c.keras", 0, None)]
    assert found(None, ["model.previous=c.keras,d.keras"]) == [("c.keras", None, None), ("d.keras", None, None)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('{"path": "a", "lenght": 9}', "model.previous[0].lenght is none of path, length, mode, calibration, arch"),
        ('["a", {"length": 9}]', "model.previous[1].path is missing (set by a flag)"),
        ('{"path": "a", "length": "x"}', "model.previous[0].length = 'x': must be a valid integer"),
        ('{"path": "a", "mode": "run"}', "model.previous[0].mode = 'run': must be 'step' or 'buffer'"),
        ("[7]", "model.previous = '[7]': must be a list of files, each a path or a table with path"),
        ('{"path": "a"', 'model.previous = \'{"path": "a"\': must be a list'),
    ],
)
def test_a_mistake_in_an_older_model_names_the_entry(given: str, said: str) -> None:
    (line,) = mistakes(None, "model.on_change=finish", f"model.previous={given}")
    assert line.startswith(said)


def test_an_unknown_key_names_its_path_the_nearest_setting_and_the_file(write: Write) -> None:
    file = write("[kafka]\nbootstrap_server = 'a:1'\n")
    expected = f"kafka.bootstrap_server is not a setting; did you mean kafka.bootstrap_servers? (set by {file})"
    assert mistakes(file) == [expected]


@pytest.mark.parametrize(
    ("text", "path", "nearest"),
    [
        ("[sequence]\nlenght = 3", "sequence.lenght", "sequence.length"),
        ("[kafka]\ngroup = 'a'", "kafka.group", "kafka.group_id"),
        ("[input]\nidle_timeout_ms = 3", "input.idle_timeout_ms", "sequence.idle_timeout_ms"),
        ("group_id = 'a'", "group_id", "kafka.group_id"),
        ("[sequense]\nlength = 3", "sequense", "sequence"),
    ],
)
def test_a_key_that_is_misspelt_or_in_the_wrong_table_finds_its_setting(
    text: str, path: str, nearest: str, write: Write
) -> None:
    (line,) = mistakes(write(text))
    assert line.startswith(f"{path} is not a setting; did you mean {nearest}?")


def test_a_librdkafka_property_in_the_kafka_table_is_pointed_to_its_own(write: Write) -> None:
    (line,) = mistakes(write("[kafka]\nsasl.username = 'me'\n"))
    assert "kafka.sasl is not a setting" in line
    assert "[kafka.properties]" in line


def test_an_unknown_environment_variable_of_ours_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTM_WORKER__KAFK__GROUP_ID", "a")
    assert mistakes() == ["LSTM_WORKER__KAFK__GROUP_ID: kafk is not a setting; did you mean kafka?"]


def test_an_unknown_key_in_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTM_WORKER__HTTP__PRT", "1")
    assert mistakes() == ["http.prt is not a setting; did you mean http.port? (set by the environment)"]


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("http.port=x", "must be a valid integer"),
        ("http.port=65536", "must be less than or equal to 65535"),
        ("http.ready_while_restoring=perhaps", "must be a valid boolean"),
        ("input.format=xml", "must be 'json' or 'binary'"),
        ("worker.guarantee=most", "must be 'exactly_once' or 'at_least_once'"),
        ("worker.bad_records_max_share=1.5", "must be less than or equal to 1"),
        ("worker.bad_records_max_share=nan", "must be"),
        ("topics.input=a b", "must be a topic name"),
        ("kafka.bootstrap_servers=a b", "must be host:port"),
        ("kafka.bootstrap_servers=host:port", "must be host:port"),
        ("input.features=[1", "must be a list"),
        ("state.cache_bytes=1", "must be greater than or equal to 1048576"),
    ],
)
def test_a_wrong_value_is_one_line_with_path_value_and_reason(flag: str, reason: str) -> None:
    path, value = flag.split("=")
    (line,) = mistakes(None, flag)
    assert line.startswith(f"{path} = {value!r}: ")
    assert reason in line
    assert line.endswith("(set by a flag)")


def test_true_is_not_a_port(write: Write) -> None:
    (line,) = mistakes(write("[http]\nport = true\n"))
    assert line.startswith("http.port = True: must be a number")


def test_a_property_that_is_no_scalar_is_one_line(write: Write) -> None:
    (line,) = mistakes(write("[kafka.properties]\n'linger.ms' = [1]\n"))
    assert line.startswith("kafka.properties.linger.ms = [1]: must be a text, a number, true or false")


def test_a_value_where_a_table_belongs_says_how_to_write_it(write: Write) -> None:
    (line,) = mistakes(write("kafka = 'localhost:9092'\n"))
    assert line.startswith("kafka is a table: write [kafka]")


def test_every_mistake_is_reported_at_once(write: Write) -> None:
    lines = mistakes(write("[http]\nport = 'x'\nbnd = 1\n[input]\nformat = 'xml'\n"))
    assert [line.split()[0] for line in lines] == ["input.format", "http.port", "http.bnd"]


def test_a_missing_file_is_named() -> None:
    (line,) = mistakes(Path("/nowhere/worker.toml"))
    assert line.startswith("/nowhere/worker.toml cannot be read (No such file or directory)")


def test_a_file_that_is_not_toml_names_the_line(write: Write) -> None:
    (line,) = mistakes(write("[kafka]\ngroup_id = \n"))
    assert "is not TOML" in line
    assert "line 2" in line


def test_a_flag_without_a_value_says_how_to_write_it() -> None:
    assert mistakes(None, "http.port") == ["--set http.port: write --set section.key=value"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["state.changelog=false"], "state.changelog = false needs worker.guarantee = at_least_once"),
        (["worker.guarantee=at_least_once", "state.changelog=false", "state.standby=1"], "state.standby needs"),
        (["worker.commit_interval_ms=8000"], "must be at most half of kafka.transaction_timeout_ms"),
        (["model.previous=old.keras"], "model.previous is only used with model.on_change = finish"),
        (["topics.output=samples"], "topics.output and topics.input are both 'samples'"),
        (["topics.changelog=samples"], "topics.changelog and topics.input are both 'samples'"),
        (["input.format=binary", "input.features=x"], "input.features names JSON fields"),
        (["input.features=x,step"], "step is a control"),
        (["input.features=x,x"], "names a field twice"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(flags: list[str], words: str) -> None:
    (line,) = mistakes(None, *flags)
    assert words in line
