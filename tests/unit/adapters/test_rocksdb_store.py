"""What RocksDB must do beyond the Store contract: whose rows, crashes, damage, locks, options."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from worker.adapters.rocksdb_store import RocksDBStore, SharedMemory, StoreIdentity
from worker.errors import StateDirectoryInUse, StateTorn, StoreCorrupted
from worker.ports import StorePosition

IDENTITY = StoreIdentity(input_topic="samples", partition=2, partition_count=4, changelog_topic="changes")


def opened(path: Path, identity: StoreIdentity = IDENTITY, *, write_ahead_log: bool = False) -> RocksDBStore:
    return RocksDBStore.open(path, identity, write_ahead_log=write_ahead_log)


def test_the_position_survives_reopening_with_all_its_parts(tmp_path: Path) -> None:
    position = StorePosition(input_next_offset=2**40, changelog_next_offset=7, watermark_ms=1795453368722)
    store = opened(tmp_path / "2")
    assert store.written_at_ms == -1
    store.write([], position)
    written_at_ms = store.written_at_ms
    store.close()
    store = opened(tmp_path / "2")
    assert store.position == position
    assert store.written_at_ms == written_at_ms > 0
    store.close()


class Clock:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.time_ms = 1000

    def now_ms(self) -> int:
        return self.time_ms

    def monotonic(self) -> float:
        return self.time_ms / 1000


def test_a_restore_that_is_interrupted_again_and_again_does_not_make_a_store_look_fresh(tmp_path: Path) -> None:
    clock = Clock()
    store = RocksDBStore.open(tmp_path / "2", IDENTITY, write_ahead_log=False, clock=clock)
    store.write([(b"a", b"1")], StorePosition(10, 5))
    clock.time_ms = 9000
    store.write([(b"b", b"2")], StorePosition(10, 7))
    assert store.written_at_ms == 1000
    store.write([], StorePosition(20, 8))
    assert store.written_at_ms == 9000
    store.close()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"input_topic": "others"}, "input_topic 'samples', expected 'others'"),
        ({"partition": 3}, "partition 2, expected 3"),
        ({"partition_count": 8}, "partition_count 4, expected 8"),
        ({"changelog_topic": ""}, "changelog_topic 'changes', expected ''"),
        ({"cluster_id": "B"}, "cluster_id 'A', expected 'B'"),
        ({"input_topic_id": "new"}, "input_topic_id 'old', expected 'new'"),
        ({"format_version": 2}, "format_version 1, expected 2"),
    ],
)
def test_a_store_of_something_else_is_refused_with_the_way_out_and_left_as_it_is(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    ours = replace(IDENTITY, cluster_id="A", input_topic_id="old")
    opened(tmp_path / "2", ours).close()
    with pytest.raises(StateTorn, match="lstm-worker reset") as raised:
        opened(tmp_path / "2", replace(ours, **change))
    assert named in str(raised.value)
    opened(tmp_path / "2", ours).close()


def test_ids_that_were_not_known_at_first_are_learnt_and_then_held(tmp_path: Path) -> None:
    opened(tmp_path / "2").close()
    opened(tmp_path / "2", replace(IDENTITY, cluster_id="A", input_topic_id="T")).close()
    opened(tmp_path / "2").close()
    with pytest.raises(StateTorn, match="cluster_id"):
        opened(tmp_path / "2", replace(IDENTITY, cluster_id="B"))


def test_a_second_opening_is_refused_and_leaves_the_first_one_alone(tmp_path: Path) -> None:
    store = opened(tmp_path / "2")
    with pytest.raises(StateDirectoryInUse, match="is open"):
        opened(tmp_path / "2")
    store.write([(b"a", b"1")], StorePosition(1))
    store.close()


def test_a_store_of_another_process_is_refused_until_that_one_dies(tmp_path: Path) -> None:
    with writer(tmp_path / "2", write_ahead_log=True) as process:
        read_line(process)
        with pytest.raises(StateDirectoryInUse):
            opened(tmp_path / "2")
        process.kill()
    opened(tmp_path / "2").close()


def test_reopening_keeps_the_options(tmp_path: Path) -> None:
    memory = SharedMemory()
    for _ in range(2):
        store = RocksDBStore.open(tmp_path / "2", IDENTITY, shared_cache=memory, write_ahead_log=True)
        store.write([(b"a", b"1")], StorePosition(1))
        store.close()
        text = max(tmp_path.glob("2/OPTIONS-*")).read_text()
        for line in ("write_buffer_size=8388608", "max_open_files=256", "checksum=kXXH3", "block_size=8192"):
            assert f"  {line}\n" in text
        assert "  filter_policy=bloomfilter" in text


def test_the_estimate_of_rows_does_not_count_the_stores_own_entries(tmp_path: Path) -> None:
    store = opened(tmp_path / "2")
    assert store.estimated_rows() == 0
    store.write([(b"%d" % number, b"x") for number in range(100)], StorePosition(1))
    assert store.estimated_rows() == 100
    store.close()


# A child process writes without end: row and position carry the same number, so a torn batch shows.
WRITER = """
import sys
from pathlib import Path
from worker.adapters.rocksdb_store import RocksDBStore, StoreIdentity
from worker.ports import StorePosition
identity = StoreIdentity(input_topic="samples", partition=2, partition_count=4, changelog_topic="changes")
store = RocksDBStore.open(Path(sys.argv[1]), identity, write_ahead_log=sys.argv[2] == "True")
number = store.position.input_next_offset if store.position else 0
while True:
    number += 1
    store.write([(b"key-%d" % key, b"%d" % number * 200) for key in range(50)], StorePosition(number))
    if number % 20 == 0:
        print(number, flush=True)
"""


def writer(path: Path, *, write_ahead_log: bool) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(write_ahead_log)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


@pytest.mark.parametrize("write_ahead_log", [True, False])
def test_after_kill_9_rows_and_position_are_of_the_same_write(tmp_path: Path, write_ahead_log: bool) -> None:
    path = tmp_path / "2"
    for lines in (1, 7, 30):
        with writer(path, write_ahead_log=write_ahead_log) as process:
            confirmed = [read_line(process) for _ in range(lines)][-1]
            process.kill()
        store = opened(path, write_ahead_log=write_ahead_log)
        rows = dict(store.scan())
        if store.position is None:
            assert not write_ahead_log
            assert rows == {}
        else:
            number = store.position.input_next_offset
            assert rows == {b"key-%d" % key: b"%d" % number * 200 for key in range(50)}
            # With the log nothing that was confirmed is lost to a killed process.
            assert not write_ahead_log or number >= confirmed
        store.close()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[bytes, bytes]]:
    path = tmp_path_factory.mktemp("healthy") / "2"
    noise = random.Random(7)
    rows = {b"key-%04d" % number: noise.randbytes(400) for number in range(2000)}
    store = opened(path)
    store.write(rows.items(), StorePosition(2000))
    store.close()
    return path, rows


def flip(offset_share: float) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[int(len(data) * offset_share)] ^= 0x10

    return change


def truncate(share: float) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        del data[int(len(data) * share) :]

    return change


DAMAGES = [("*.sst", flip(share / 12)) for share in range(12)]
DAMAGES += [("*.sst", truncate(share)) for share in (0.0, 0.3, 0.99)]
DAMAGES += [("MANIFEST-*", flip(0.5)), ("MANIFEST-*", truncate(0.5)), ("CURRENT", flip(0.2)), ("CURRENT", truncate(0))]


@pytest.mark.parametrize("number", range(len(DAMAGES)))
def test_damage_is_reported_or_harmless_but_never_served(
    healthy: tuple[Path, dict[bytes, bytes]], tmp_path: Path, number: int
) -> None:
    source, rows = healthy
    pattern, change = DAMAGES[number]
    path = tmp_path / "2"
    shutil.copytree(source, path)
    (file,) = path.glob(pattern)
    data = bytearray(file.read_bytes())
    change(data)
    file.write_bytes(data)
    try:
        store = opened(path)
    except StoreCorrupted:
        return
    try:
        served = dict(store.scan())
    except StoreCorrupted:
        with pytest.raises(StoreCorrupted):
            store.get_many(list(rows))
    else:
        # A truncated MANIFEST may open as the consistent state that it was before: here the empty one.
        assert served == (rows if store.position else {})
    finally:
        store.close()


def test_most_of_these_damages_are_indeed_reported(healthy: tuple[Path, dict[bytes, bytes]], tmp_path: Path) -> None:
    source, _ = healthy
    reported = 0
    for number in range(12):
        path = tmp_path / str(number)
        shutil.copytree(source, path)
        (file,) = path.glob("*.sst")
        data = bytearray(file.read_bytes())
        flip(number / 12)(data)
        file.write_bytes(data)
        try:
            store = opened(path)
            store.get_many([b"key-0000"])
            list(store.scan())
            store.close()
        except StoreCorrupted:
            reported += 1
    assert reported >= 11


def test_a_store_that_was_found_damaged_is_refused_from_then_on(
    healthy: tuple[Path, dict[bytes, bytes]], tmp_path: Path
) -> None:
    source, rows = healthy
    path = tmp_path / "2"
    shutil.copytree(source, path)
    (file,) = path.glob("*.sst")
    data = bytearray(file.read_bytes())
    flip(0.5)(data)
    file.write_bytes(data)
    store = opened(path)
    with pytest.raises(StoreCorrupted):
        store.get_many(list(rows))
    store.close()
    with pytest.raises(StoreCorrupted, match="found damaged before: Corruption: block checksum mismatch"):
        opened(path)


# A limit on the size of files stands for a disk without space: it needs no mount and goes away with the process.
LIMITED = WRITER.replace(
    "number = ",
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\nnumber = ",
    1,
)


@pytest.mark.parametrize("write_ahead_log", [True, False])
def test_a_store_without_space_says_so_and_goes_on_when_there_is_some(tmp_path: Path, write_ahead_log: bool) -> None:
    path = tmp_path / "2"
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, path, str(write_ahead_log)], capture_output=True, text=True, timeout=60
    )
    assert f"worker.errors.StoreFull: no space left for the store {path}" in ended.stderr
    assert "free space or enlarge the volume of state.directory" in ended.stderr
    store = opened(path, write_ahead_log=write_ahead_log)
    number = store.position.input_next_offset if store.position else 0
    assert dict(store.scan()) == ({b"key-%d" % key: b"%d" % number * 200 for key in range(50)} if number else {})
    store.write([(b"key-0", b"new")], StorePosition(number + 1))
    store.close()


def test_rows_without_an_identity_are_not_trusted(tmp_path: Path) -> None:
    store = opened(tmp_path / "2")
    store.write([(b"a", b"1")], StorePosition(1))
    del store._database[b"\x00identity"]
    store.close()
    with pytest.raises(StoreCorrupted, match="does not say whose"):
        opened(tmp_path / "2")


def test_an_identity_of_an_unknown_layout_is_refused_not_overwritten(tmp_path: Path) -> None:
    store = opened(tmp_path / "2")
    store._database[b"\x00identity"] = b'{"format_version": 9, "shape": "new"}'
    store.close()
    for _ in range(2):
        with pytest.raises(StateTorn, match="another version"):
            opened(tmp_path / "2")
