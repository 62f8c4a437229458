"""What every Store promises, asked of the plain dictionary and of RocksDB alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.dict_store import DictStore
from worker.adapters.rocksdb_store import RocksDBStore, StoreIdentity
from worker.ports import Store, StorePosition

IDENTITY = StoreIdentity(input_topic="samples", partition=0, partition_count=4)
AT_SEVEN = StorePosition(input_next_offset=7, changelog_next_offset=3, watermark_ms=1000)


def open_rocksdb(path: Path, write_ahead_log: bool) -> RocksDBStore:
    return RocksDBStore.open(path, IDENTITY, write_ahead_log=write_ahead_log)


MAKERS: dict[str, Callable[[Path], Store]] = {
    "dictionary": lambda _: DictStore(),
    "rocksdb with log": lambda path: open_rocksdb(path, True),
    "rocksdb without log": lambda path: open_rocksdb(path, False),
}


@pytest.fixture(params=MAKERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened = MAKERS[request.param](tmp_path / "0")
    yield opened
    opened.close()


def test_a_new_store_is_empty_and_has_no_position(store: Store) -> None:
    assert store.is_empty()
    assert store.position is None
    assert list(store.scan()) == []
    assert store.get_many([b"a"]) == [None]


def test_rows_come_back_in_the_order_asked_for_with_none_for_missing_ones(store: Store) -> None:
    store.write([(b"a", b"1"), (b"b", b"2")], AT_SEVEN)
    assert store.get_many([b"b", b"missing", b"a", b"b"]) == [b"2", None, b"1", b"2"]


def test_asking_for_no_key_gives_no_row(store: Store) -> None:
    assert store.get_many([]) == []


def test_the_position_is_that_of_the_last_write(store: Store) -> None:
    store.write([], StorePosition(1))
    store.write([], AT_SEVEN)
    assert store.position == AT_SEVEN


def test_a_row_of_none_deletes(store: Store) -> None:
    store.write([(b"a", b"1"), (b"b", b"2")], StorePosition(1))
    store.write([(b"a", None), (b"never there", None)], StorePosition(2))
    assert list(store.scan()) == [(b"b", b"2")]


def test_the_last_of_several_changes_to_a_key_in_one_write_wins(store: Store) -> None:
    store.write([(b"a", b"1"), (b"a", None), (b"a", b"3"), (b"b", b"1"), (b"b", None)], StorePosition(1))
    assert list(store.scan()) == [(b"a", b"3")]


def test_a_scan_shows_rows_in_key_order_and_nothing_else(store: Store) -> None:
    keys = [b"\xff\xff", b"\x00position", b"r", b"s", b"", b"\x00", b"\x00identity", b"key"]
    store.write([(key, b"row of " + key) for key in keys], AT_SEVEN)
    assert list(store.scan()) == [(key, b"row of " + key) for key in sorted(keys)]
    assert store.position == AT_SEVEN


def test_a_store_with_only_a_position_is_empty(store: Store) -> None:
    store.write([], AT_SEVEN)
    assert store.is_empty()


def test_empty_rows_are_rows(store: Store) -> None:
    store.write([(b"a", b"")], AT_SEVEN)
    assert store.get_many([b"a"]) == [b""]
    assert not store.is_empty()


def test_rows_may_come_from_a_generator(store: Store) -> None:
    store.write(((b"%03d" % i, b"x") for i in range(500)), AT_SEVEN)
    assert len(list(store.scan())) == 500


def test_closing_twice_is_harmless(store: Store) -> None:
    store.write([(b"a", b"1")], AT_SEVEN)
    store.close()
    store.close()


keys = st.binary(max_size=3)
writes = st.lists(st.lists(st.tuples(keys, st.none() | st.binary(max_size=4)), max_size=6), max_size=6)


@settings(max_examples=25, deadline=None)
@given(writes=writes, reopen_after=st.integers(0, 6), write_ahead_log=st.booleans())
def test_rocksdb_equals_the_dictionary_after_any_writes_and_a_reopening(
    writes: list[list[tuple[bytes, bytes | None]]], reopen_after: int, write_ahead_log: bool
) -> None:
    expected = DictStore()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "0"
        store = open_rocksdb(path, write_ahead_log)
        for number, rows in enumerate(writes):
            if number == reopen_after:
                store.close()
                store = open_rocksdb(path, write_ahead_log)
            for each in (expected, store):
                each.write(rows, StorePosition(number))
        assert list(store.scan()) == list(expected.scan())
        assert store.position == expected.position
        asked = [key for rows in writes for key, _ in rows]
        assert store.get_many(asked) == expected.get_many(asked)
        store.close()
