"""One worker, one directory."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from worker.adapters.state_directory import StateDirectory
from worker.errors import ConfigError, StateDirectoryInUse


class FixedClock:
    def __init__(self, now_ms: int) -> None:
        self.time_ms = now_ms

    def now_ms(self) -> int:
        return self.time_ms

    def monotonic(self) -> float:
        return self.time_ms / 1000


@pytest.fixture
def directory(tmp_path: Path) -> StateDirectory:
    return StateDirectory.open(tmp_path / "state", FixedClock(1000))


def test_a_missing_directory_is_created_with_its_parents(tmp_path: Path) -> None:
    with StateDirectory.open(tmp_path / "a" / "b") as opened:
        assert opened.path.is_dir()


def test_the_member_id_is_a_uuid_that_stays_with_the_directory(tmp_path: Path) -> None:
    with StateDirectory.open(tmp_path / "one") as opened:
        first = opened.member_id
    with StateDirectory.open(tmp_path / "one") as opened:
        assert opened.member_id == first == str(uuid.UUID(first))
    with StateDirectory.open(tmp_path / "two") as opened:
        assert opened.member_id != first


def test_a_second_opening_names_the_directory_and_the_process_that_holds_it(tmp_path: Path) -> None:
    with StateDirectory.open(tmp_path), pytest.raises(StateDirectoryInUse) as raised:
        StateDirectory.open(tmp_path)
    assert str(raised.value).startswith(f"state directory {tmp_path} is in use by process {os.getpid()}: ")


def test_closing_releases_the_lock_and_can_be_repeated(tmp_path: Path) -> None:
    opened = StateDirectory.open(tmp_path)
    opened.close()
    opened.close()
    StateDirectory.open(tmp_path).close()


def test_the_lock_of_a_killed_process_is_gone_with_it(tmp_path: Path) -> None:
    program = (
        "import sys; from worker.adapters.state_directory import StateDirectory as D;"
        "d = D.open(sys.argv[1]); print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(StateDirectoryInUse, match=f"in use by process {holder.pid}"):
            StateDirectory.open(tmp_path)
        holder.kill()
        holder.wait()
    StateDirectory.open(tmp_path).close()


def test_a_path_that_is_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.write_text("")
    with pytest.raises(ConfigError, match=r"state directory .*state cannot be used \(.*\): set state.directory"):
        StateDirectory.open(file)


def test_a_damaged_member_id_is_refused_and_the_lock_released(tmp_path: Path) -> None:
    StateDirectory.open(tmp_path).close()
    (tmp_path / "member-id").write_text("not a uuid\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match="member-id holds no UUID"):
            StateDirectory.open(tmp_path)


def test_a_store_lies_under_topic_and_partition(directory: StateDirectory) -> None:
    assert directory.store_path("samples", 3) == directory.path / "samples" / "3"


@pytest.mark.parametrize("topic", ["lock", "member-id"])
def test_a_topic_named_like_a_file_of_the_directory_is_refused(directory: StateDirectory, topic: str) -> None:
    with pytest.raises(ConfigError, match=f"'{topic}'"):
        directory.store_path(topic, 0)


def test_partitions_are_listed_without_what_was_set_aside(directory: StateDirectory) -> None:
    assert directory.partitions("samples") == []
    for name in ("10", "2", "0.corrupt-5", "notes"):
        (directory.path / "samples" / name).mkdir(parents=True)
    assert directory.partitions("samples") == [2, 10]


def test_setting_aside_keeps_only_the_newest_of_that_partition(tmp_path: Path) -> None:
    clock = FixedClock(5)
    with StateDirectory.open(tmp_path, clock) as directory:
        for time_ms, partition in ((5, 1), (6, 10), (7, 1)):
            store = directory.store_path("samples", partition)
            store.mkdir(parents=True)
            (store / "data").write_text(str(time_ms))
            clock.time_ms = time_ms
            target = directory.set_aside("samples", partition)
            assert target is not None
            assert (target / "data").read_text() == str(time_ms)
            assert not store.exists()
        assert sorted(each.name for each in (tmp_path / "samples").iterdir()) == ["1.corrupt-7", "10.corrupt-6"]


def test_setting_aside_nothing_gives_nothing(directory: StateDirectory) -> None:
    assert directory.set_aside("samples", 0) is None


def test_wiping_removes_the_store_and_tolerates_none(directory: StateDirectory) -> None:
    store = directory.store_path("samples", 0)
    (store / "inner").mkdir(parents=True)
    directory.wipe("samples", 0)
    directory.wipe("samples", 0)
    assert not store.exists()
