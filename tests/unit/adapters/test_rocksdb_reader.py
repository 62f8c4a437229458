"""Reading a store from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.adapters.rocksdb_reader import read_rows
from worker.adapters.rocksdb_store import RocksDBStore, StoreIdentity
from worker.errors import StoreCorrupted
from worker.ports import StorePosition

ROWS = [(b"", b"empty key"), (b"\x00identity", b"looks like the store's own"), (b"\xff\xff", b"last")]


def written(path: Path) -> Path:
    store = RocksDBStore.open(path, StoreIdentity("samples", 0, 1), write_ahead_log=True)
    store.write(ROWS, StorePosition(3))
    store.close()
    return path


def test_all_rows_and_nothing_else_are_read(tmp_path: Path) -> None:
    assert list(read_rows(written(tmp_path / "0"))) == ROWS


def test_a_reader_that_stops_early_leaves_the_store_usable(tmp_path: Path) -> None:
    path = written(tmp_path / "0")
    next(read_rows(path))
    assert list(read_rows(path)) == ROWS


def test_what_is_no_store_is_reported_as_such(tmp_path: Path) -> None:
    with pytest.raises(StoreCorrupted, match="nothing-here"):
        list(read_rows(tmp_path / "nothing-here"))


def test_a_damaged_file_is_an_error_and_not_an_early_end(tmp_path: Path) -> None:
    path = written(tmp_path / "0")
    (table,) = path.glob("*.sst")
    content = bytearray(table.read_bytes())
    content[10] ^= 0xFF
    table.write_bytes(content)
    with pytest.raises(StoreCorrupted):
        list(read_rows(path))
