"""A look into a partition's store from outside of a worker: read-only, whoever it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rocksdict import AccessType, Options, Rdict

from worker.adapters.rocksdb_store import ROW_PREFIX
from worker.errors import StoreCorrupted


def read_rows(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """All (stream key, row) of the store at `path`, in key order. Raises StoreCorrupted.

    Nothing is changed on disk, so a store can be looked at that a worker would refuse. No worker should have it open.
    """
    with _translated(path):
        database = Rdict(str(path), Options(raw_mode=True), access_type=AccessType.read_only())
        iterator = database.iter()
        iterator.seek(ROW_PREFIX)
    try:
        while iterator.valid() and iterator.key().startswith(ROW_PREFIX):
            yield iterator.key()[len(ROW_PREFIX) :], iterator.value()
            iterator.next()
        with _translated(path):
            # An iterator also ends, silently, at a corrupt block.
            iterator.status()
    finally:
        database.close()


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # rocksdict raises nothing more specific; what is more specific is a bug
        if type(error) is not Exception:
            raise
        raise StoreCorrupted(str(path), str(error)) from error
