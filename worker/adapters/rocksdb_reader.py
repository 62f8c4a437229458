"""A look into a partition's store from outside of a worker: read-only, whoever it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rocksdict import AccessType, Options, Rdict

from worker.adapters.rocksdb_store import ROW_PREFIX, translated


def read_rows(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """All (stream key, row) of the store at `path`, in key order. Raises StoreCorrupted, ConfigError.

    Nothing is changed on disk, so a store can be looked at that a worker would refuse. No worker should have it open.
    """
    with translated(path):
        database = Rdict(str(path), Options(raw_mode=True), access_type=AccessType.read_only())
        iterator = database.iter()
        iterator.seek(ROW_PREFIX)
    try:
        while iterator.valid() and iterator.key().startswith(ROW_PREFIX):
            yield iterator.key()[len(ROW_PREFIX) :], iterator.value()
            iterator.next()
        with translated(path):
            # An iterator also ends, silently, at a corrupt block.
            iterator.status()
    finally:
        database.close()
