"""`state`: what is in the store of a stopped worker, and how a sequence is ended from outside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.cli.conftest import Cli
from worker.adapters.rocksdb_store import RocksDBStore, StoreIdentity
from worker.adapters.state_directory import StateDirectory
from worker.core.state_row import Flag, RowFormat
from worker.ports import StorePosition

FORMAT = RowFormat("ab" * 32, outputs=1, state_size=2)
NO_HTTP = ("--set", "http.port=0")


def packed(step: int, flags: int = 0, sequence_id: bytes = b"") -> bytes:
    rows = FORMAT.blank.copy()
    rows["step"], rows["flags"], rows["first_offset"] = step, flags, 7
    rows["event_time"] = 1_732_000_000_123
    rows["probabilities"] = 0.5
    rows["state"] = np.arange(2, dtype=np.float32)
    return FORMAT.pack(rows, [sequence_id])[0]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A state directory with two partitions, left behind by a worker that was stopped."""
    with StateDirectory.open(tmp_path / "state") as state:
        for partition, rows in {
            0: [(b"alice", packed(3, Flag.TAINTED)), (b"\xff\x00", packed(1))],
            2: [(b"bob", packed(5, sequence_id=b"run-7"))],
        }.items():
            identity = StoreIdentity("samples", partition, 4)
            store = RocksDBStore.open(state.store_path("samples", partition), identity, write_ahead_log=True)
            store.write(rows, StorePosition(10))
            store.close()
    return tmp_path / "state"


@pytest.mark.usefixtures("directory")
def test_list_shows_open_sequences_of_all_partitions(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    ended = cli("state", "list")
    assert ended.code == 0
    words = [line.replace("│", " ").split() for line in ended.out.splitlines()]
    assert ["alice", "0", "3", "2024-11-19", "07:06:40.123", "7", "abababab", "tainted"] in words
    assert ["bob", "2", "run-7", "5", "2024-11-19", "07:06:40.123", "7", "abababab"] in words
    assert "\\xff\x00" in ended.out or "\\xff" in ended.out


@pytest.mark.usefixtures("directory")
def test_list_says_when_there_is_more(cli: Cli) -> None:
    assert "more than 1 streams: raise --limit" in cli("state", "list", "--limit", "1").out


@pytest.mark.usefixtures("directory")
def test_show_reads_the_store_where_no_worker_runs(cli: Cli) -> None:
    ended = cli("state", "show", "bob", *NO_HTTP)
    shown = json.loads(ended.out)
    assert (shown["partition"], shown["step"], shown["sequence_id"], shown["model"]) == (2, 5, "run-7", "abababab")
    assert shown["state"] == [0.0, 1.0]


@pytest.mark.usefixtures("directory")
def test_show_takes_a_key_that_is_no_text_in_hexadecimal(cli: Cli) -> None:
    assert json.loads(cli("state", "show", "ff00", "--hex", *NO_HTTP).out)["step"] == 1
    assert cli("state", "show", "xyz", "--hex", *NO_HTTP).err.startswith("error: xyz is not hexadecimal")


@pytest.mark.usefixtures("directory")
def test_show_of_a_stream_without_an_open_sequence_is_an_error(cli: Cli) -> None:
    ended = cli("state", "show", "carol", *NO_HTTP)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: stream carol has no open sequence here")


@pytest.mark.usefixtures("directory")
def test_export_writes_every_row_with_its_state_as_json_lines(cli: Cli, tmp_path: Path) -> None:
    ended = cli("state", "export", "--output", "rows.jsonl")
    assert ended.code == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["key_hex"], row["step"]) for row in rows] == [(b"alice".hex(), 3), ("ff00", 1), (b"bob".hex(), 5)]
    assert rows == [json.loads(line) for line in cli("state", "export").out.splitlines()]


@pytest.mark.usefixtures("directory")
def test_export_does_not_overwrite(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("mine")
    ended = cli("state", "export", "--output", "rows.jsonl")
    assert ended.code == 2
    assert "rows.jsonl cannot be written (File exists)" in ended.err
    assert (tmp_path / "rows.jsonl").read_text() == "mine"


def test_a_store_in_use_is_left_alone(cli: Cli, directory: Path) -> None:
    with StateDirectory.open(directory):
        ended = cli("state", "list")
    assert ended.code == 7
    assert "is in use by process" in ended.err


def test_looking_changes_nothing(cli: Cli, directory: Path) -> None:
    def files() -> dict[Path, int]:
        return {path: path.stat().st_size for path in directory.rglob("*") if path.is_file()}

    before = files()
    cli("state", "list")
    cli("state", "export")
    assert files() == before


def test_a_missing_directory_is_an_error_and_is_not_created(cli: Cli, tmp_path: Path) -> None:
    ended = cli("state", "list")
    assert ended.err == "error: state directory state does not exist: set state.directory\n"
    assert list(tmp_path.iterdir()) == []
