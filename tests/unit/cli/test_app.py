"""The program as a whole: exit codes, one-line errors, and what a start costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import worker
from tests.unit.cli.conftest import Cli
from worker import __main__
from worker.errors import Fenced, IllegalTransition, StateTorn, StoreFull, TooManyBadRecords, UserError


def test_the_version_is_printed(cli: Cli) -> None:
    ended = cli("--version")
    assert (ended.code, ended.out) == (0, f"lstm-worker {worker.__version__}\n")


def test_an_unknown_command_is_a_usage_error(cli: Cli) -> None:
    ended = cli("fly")
    assert ended.code == 2
    assert "No such command 'fly'" in ended.err


def test_a_users_mistake_is_one_line_and_exit_code_2(cli: Cli) -> None:
    ended = cli("state", "list", "--set", "http.prt=1")
    assert ended.code == 2
    assert ended.err == "error: http.prt is not a setting; did you mean http.port? (set by a flag)\n"
    assert ended.out == ""


def test_each_of_several_mistakes_is_a_line(cli: Cli) -> None:
    ended = cli("state", "list", "--set", "http.port=x", "--set", "input.format=xml")
    assert [line.split(" =")[0] for line in ended.err.splitlines()] == ["error: input.format", "error: http.port"]


def test_what_librdkafka_refuses_is_a_users_mistake(cli: Cli) -> None:
    ended = cli("state", "list", "--set", "kafka.properties.sasl.passwrd=1")
    assert ended.code == 2
    assert ended.err.startswith('error: librdkafka: No such configuration property: "sasl.passwrd"')


def test_the_configuration_file_can_be_named_by_the_environment(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.toml").write_text("[http]\nprt = 1\n")
    monkeypatch.setenv("LSTM_WORKER_CONFIG", "a.toml")
    assert cli("state", "list").err.endswith("(set by a.toml)\n")


def test_an_output_that_is_not_utf_8_lacks_characters_and_nothing_else() -> None:
    model = Path(__file__).parents[2] / "goldens" / "lstm_flatten.keras"
    ended = subprocess.run(
        [sys.executable, "-m", "worker", "check", str(model), "--no-keras"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b" ?s at 1024" in ended.stdout
    wrong = subprocess.run(
        [sys.executable, "-m", "worker", "check", "\N{GREEK SMALL LETTER MU}.keras"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (wrong.returncode, wrong.stderr.count(b"\n")) == (2, 1)
    assert wrong.stderr.startswith(b"error: \\u03bc.keras does not exist")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("a", "b"), 2),
        (Fenced("a", "b"), 3),
        (StateTorn("a", "b"), 4),
        (TooManyBadRecords("a", "b"), 5),
        (StoreFull("a", "b"), 6),
    ],
)
def test_an_error_decides_the_exit_code(error: UserError, code: int, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: list[str]) -> object:
        raise error

    monkeypatch.setattr(__main__, "build_app", failing)
    ended = cli("run")
    assert (ended.code, ended.err) == (code, "error: a: b\n")


def test_an_interrupt_ends_with_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: list[str]) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "build_app", interrupted)
    assert cli("run").code == 130


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: list[str]) -> object:
        raise IllegalTransition("bug")

    monkeypatch.setattr(__main__, "build_app", broken)
    with pytest.raises(IllegalTransition):
        __main__.main()


def test_the_worker_does_not_import_what_only_other_commands_need() -> None:
    code = (
        "import sys; from worker.cli.app import build_app; build_app(['run']);"
        "slow = {'tensorflow', 'keras', 'matplotlib', 'worker.cli.demo', 'worker.cli.train'} & set(sys.modules);"
        "sys.stderr.write(' '.join(sorted(slow)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_package_can_be_run_as_a_module() -> None:
    command = [sys.executable, "-m", "worker", "state", "list", "--set", "x"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (2, "error: --set x: write --set section.key=value\n")
