"""The state rows of one input partition in RocksDB, through rocksdict.

One column family holds everything, because only then is a batch atomic without the write-ahead log. The first byte
of a key tells rows (`r` + stream key) from the store's own entries (`\\x00…`), since a stream's key may be any bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import cast

from rocksdict import (
    BlockBasedOptions,
    Cache,
    ChecksumType,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from worker.adapters.clock import SystemClock
from worker.errors import ConfigError, StateDirectoryInUse, StateTorn, StoreCorrupted, StoreFull, StoreOfAnotherTopic
from worker.ports import Clock, StorePosition

FORMAT_VERSION = 1

ROW_PREFIX = b"r"
_ROWS_END = b"s"
_IDENTITY_KEY = b"\x00identity"
_POSITION_KEY = b"\x00position"
_POSITION = struct.Struct("<qqqq")

WRITE_BUFFER_BYTES = 8 << 20
"""A crash without the write-ahead log loses at most this much, about 20,000 rows of 400 bytes: restored in a second."""
_WRITE_BUFFERS_MAX = 3
_BLOCK_BYTES = 8 << 10
_BLOOM_BITS_PER_KEY = 10.0
_OPEN_FILES_MAX = 256

DAMAGED_FILE = "DAMAGED"
"""Lies in the directory of a store that once failed to read or write: the next opening refuses it, as RocksDB itself
would only when the damaged block is met again. It goes with the directory when that is set aside."""
_FULL = ("No space left", "Disk quota exceeded", "File too large")


@dataclass(slots=True, frozen=True)
class StoreIdentity:
    """Whose rows these are. `cluster_id` and `input_topic_id` are empty where the broker does not tell them."""

    input_topic: str
    partition: int
    partition_count: int
    changelog_topic: str = ""
    cluster_id: str = ""
    input_topic_id: str = ""
    format_version: int = FORMAT_VERSION


_LEARNT_LATER = ("cluster_id", "input_topic_id")


class SharedMemory:
    """One block cache and one budget of write buffers for the stores of all partitions of a process."""

    def __init__(self, cache_bytes: int = 32 << 20, write_buffers_bytes: int = 64 << 20) -> None:
        self.cache = Cache(cache_bytes)
        # Stalling would block the loop; beyond the budget RocksDB flushes the oldest write buffers instead.
        self.write_buffers = WriteBufferManager(write_buffers_bytes, False)


class RocksDBStore:
    """The state rows of one input partition; used by one thread."""

    def __init__(self, path: Path, database: Rdict, write_options: WriteOptions, clock: Clock) -> None:
        self.path = path
        self._database = database
        self._write_options = write_options
        self._clock = clock
        self._position: StorePosition | None = None
        self._written_at_ms = -1
        self._closed = False
        self._damaged = False

    @classmethod
    def open(
        cls,
        path: str | Path,
        identity: StoreIdentity,
        *,
        shared_cache: SharedMemory | None = None,
        write_ahead_log: bool,
        clock: Clock | None = None,
    ) -> RocksDBStore:
        """Open or create the store and check that it belongs to `identity`.

        Without `write_ahead_log` a killed process loses the rows of the last write buffers *and* their position:
        an older consistent state, for stores whose rows a changelog can bring back.

        Raises StateDirectoryInUse when another process has it open, StateTorn when it holds another partition's
        or topic's rows, StoreCorrupted when it cannot be read or was found damaged before, StoreFull when there is no
        space.
        """
        directory = Path(path)
        _refuse_damaged(directory)
        with translated(directory, opening=True):
            directory.parent.mkdir(parents=True, exist_ok=True)
            options = _options(shared_cache)
            # Without the second argument a re-opened database takes the column family's options from its files.
            database = Rdict(str(directory), options, {"default": options})
        write_options = WriteOptions()
        # The stubs show a method where there is a property.
        write_options.disable_wal = not write_ahead_log  # type: ignore[method-assign,assignment]  # a property
        store = cls(directory, database, write_options, clock or SystemClock())
        try:
            store._check_identity(identity)
            store._load_position()
        except BaseException:
            store._release()
            raise
        return store

    @property
    def position(self) -> StorePosition | None:
        """The position of the last write; None for a store that was never written."""
        return self._position

    @property
    def written_at_ms(self) -> int:
        """Wall clock of the last write, milliseconds; -1 before the first. Tells a disk that was away for too long."""
        return self._written_at_ms

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Rows of the given stream keys, None where there is none. Raises StoreCorrupted."""
        if not keys:
            return []
        with self._trusted():
            return cast(list[bytes | None], self._database.get([ROW_PREFIX + key for key in keys]))

    def write(self, rows: Iterable[tuple[bytes, bytes | None]], position: StorePosition) -> None:
        """Put rows (None deletes) and the position in one atomic batch. Raises StoreFull, StoreCorrupted.

        After StoreFull the store is as before and the same write may be tried again.
        """
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, row in rows:
            if row is None:
                delete(ROW_PREFIX + key)
            else:
                put(ROW_PREFIX + key, row)
        written_at_ms = self._clock.now_ms()
        held = self._position
        if held is not None and held.input_next_offset == position.input_next_offset:
            # A part of a restore: as old as it was, or interrupted restores would hide how old its rows are.
            written_at_ms = self._written_at_ms
        put(
            _POSITION_KEY,
            _POSITION.pack(
                position.input_next_offset, position.changelog_next_offset, position.watermark_ms, written_at_ms
            ),
        )
        self._commit(batch)
        self._position = position
        self._written_at_ms = written_at_ms

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        """All (stream key, row), in key order; raises StoreCorrupted instead of ending early."""
        with self._trusted():
            read_options = ReadOptions()
            read_options.set_iterate_upper_bound(_ROWS_END)
            # iter() + status(): items() would end silently at a corrupt block.
            iterator = self._database.iter(read_options)
            iterator.seek(ROW_PREFIX)
        while True:
            with self._trusted():
                if not iterator.valid():
                    iterator.status()
                    return
                entry = iterator.key()[1:], iterator.value()
                iterator.next()
            yield entry

    def is_empty(self) -> bool:
        """Whether the store holds no row."""
        return next(self.scan(), None) is None

    def estimated_rows(self) -> int:
        """About how many rows the store holds, without reading them; overwritten rows may count twice."""
        own_entries = 2
        with self._trusted():
            keys = self._database.property_int_value("rocksdb.estimate-num-keys") or 0
        return max(0, keys - own_entries)

    def flush(self) -> None:
        """Write what is in memory to files, so that a kill loses nothing up to here. Raises StoreFull."""
        with self._trusted():
            self._database.flush()

    def close(self) -> None:
        """Flush and release the directory's lock; idempotent. A damaged store is not written any more."""
        if self._closed:
            return
        try:
            if not self._damaged:
                self.flush()
        finally:
            self._release()

    def _release(self) -> None:
        self._closed = True
        with translated(self.path):
            self._database.close()

    def _commit(self, batch: WriteBatch) -> None:
        """The only way into the database."""
        with self._trusted():
            self._database.write(batch, self._write_options)

    @contextmanager
    def _trusted(self) -> Iterator[None]:
        """As `translated`; a damage is kept in mind, on disk too: after a restart it may not show at opening."""
        try:
            with translated(self.path):
                yield
        except StoreCorrupted as error:
            self._damaged = True
            if self.path.is_dir():
                (self.path / DAMAGED_FILE).write_text(f"{error.reason}\n")
            raise

    def _check_identity(self, identity: StoreIdentity) -> None:
        with translated(self.path):
            raw: bytes | None = self._database.get(_IDENTITY_KEY)
            stray = None if raw is not None else self._first_key()
        if raw is None:
            if stray is not None:
                raise StoreCorrupted(str(self.path), "it holds rows but does not say whose")
            self._write_identity(identity)
            return
        stored = _parse_identity(raw, self.path)
        known = stored
        for name in _LEARNT_LATER:
            if not getattr(stored, name):
                known = replace(known, **{name: getattr(identity, name)})
            elif not getattr(identity, name):
                identity = replace(identity, **{name: getattr(stored, name)})
        for field in fields(StoreIdentity):
            there, expected = getattr(known, field.name), getattr(identity, field.name)
            if there != expected:
                raise StoreOfAnotherTopic(
                    f"state in {self.path} has {field.name} {there!r}, expected {expected!r}",
                    "run `lstm-worker reset` or use another state.directory",
                )
        if known != stored:
            self._write_identity(known)

    def _write_identity(self, identity: StoreIdentity) -> None:
        batch = WriteBatch(raw_mode=True)
        batch.put(_IDENTITY_KEY, json.dumps(asdict(identity)).encode())
        self._commit(batch)

    def _first_key(self) -> bytes | None:
        iterator = self._database.iter()
        iterator.seek_to_first()
        key: bytes | None = iterator.key() if iterator.valid() else None
        iterator.status()
        return key

    def _load_position(self) -> None:
        with translated(self.path):
            raw: bytes | None = self._database.get(_POSITION_KEY)
        if raw is None:
            return
        if len(raw) != _POSITION.size:
            raise StoreCorrupted(str(self.path), f"position of {len(raw)} bytes, expected {_POSITION.size}")
        input_next_offset, changelog_next_offset, watermark_ms, self._written_at_ms = _POSITION.unpack(raw)
        self._position = StorePosition(input_next_offset, changelog_next_offset, watermark_ms)


def _options(shared: SharedMemory | None) -> Options:
    blocks = BlockBasedOptions()
    blocks.set_block_size(_BLOCK_BYTES)
    blocks.set_bloom_filter(_BLOOM_BITS_PER_KEY, False)  # type: ignore[arg-type]  # the stubs say int
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    blocks.set_checksum_type(ChecksumType.xxh3())
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(_WRITE_BUFFERS_MAX)
    options.set_max_background_jobs(2)
    options.set_max_open_files(_OPEN_FILES_MAX)
    options.set_keep_log_file_num(2)
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_paranoid_checks(True)
    # Floats of a recurrent state are near random: compression costs time and saves little.
    options.set_compression_type(DBCompressionType.none())
    if shared is not None:
        blocks.set_block_cache(shared.cache)
        options.set_write_buffer_manager(shared.write_buffers)
    options.set_block_based_table_factory(blocks)
    return options


def _parse_identity(raw: bytes, path: Path) -> StoreIdentity:
    try:
        return StoreIdentity(**json.loads(raw))
    except (ValueError, TypeError) as error:
        raise StateTorn(
            f"state in {path} was written by another version of the worker",
            "use that version, or run `lstm-worker reset`",
        ) from error


def _refuse_damaged(directory: Path) -> None:
    file = directory / DAMAGED_FILE
    if file.exists():
        raise StoreCorrupted(str(directory), f"found damaged before: {file.read_text().strip()}")


@contextmanager
def translated(path: Path, *, opening: bool = False) -> Iterator[None]:
    """Turn rocksdict's errors, which are all bare `Exception`s that differ only in text, into ours."""
    try:
        yield
    except Exception as error:  # rocksdict raises nothing more specific; what is more specific is a bug
        if type(error) is not Exception:
            raise
        raise _translate(str(error), path, opening) from error


def _translate(text: str, path: Path, opening: bool) -> Exception:
    if any(reason in text for reason in _FULL):
        return StoreFull(
            f"no space left for the store {path} ({text})",
            "free space or enlarge the volume of state.directory, then start again: nothing that was committed is lost",
        )
    if opening and ("lock hold by current process" in text or "While lock file" in text):
        return StateDirectoryInUse(
            f"store {path} is open in another process", "stop that worker or set another state.directory"
        )
    if "Permission denied" in text or "Read-only file system" in text:
        return ConfigError(f"store {path} cannot be written", "check the owner and mode of state.directory")
    return StoreCorrupted(str(path), text)
