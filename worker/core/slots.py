"""Live streams in memory: one slot a stream, one structured array for all rows, and what is not committed yet.

An engine steps rows in place. Before a slot is first changed after a commit its row is copied aside (*before-image*):
`rollback` copies the images back, `committed` drops them. Changed slots are never evicted, so every row that is only
in memory is in the table, and every row that is not in the table is in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from worker.core.state_row import RowFormat, Rows
from worker.core.types import BoolArray, Float32Array, Int32Array, Int64Array

ReadRows = Callable[[int, list[bytes]], list[bytes | None]]
"""(partition, stream keys) → stored rows, None where there is none."""

BYTES_PER_STREAM_OVERHEAD = 300
"""Key, dictionary entry and bookkeeping columns of one slot, measured with 16-byte keys (about 280 bytes)."""


class HoldsStates(Protocol):
    """An engine that keeps the states it stepped to itself, on a device."""

    @property
    def state_size(self) -> int:
        """S, floats of one stream's state."""

    def fetch(self, slots: Int64Array, states: Float32Array) -> None:
        """Write what it holds of these slots to their rows of `states` (slots, S); others stay as they are."""

    def forget(self, slots: Int64Array) -> None:
        """What it holds of these slots is of no use any more: their rows are newer."""


@dataclass(slots=True)
class _BeforeImage:
    slots: Int64Array
    rows: Rows
    sequence_ids: dict[int, bytes]


class StreamTable:
    """Slots of all partitions that this worker owns.

    slots_max bounds the streams in memory; memory is only touched as slots come into use. The states of changed slots
    may be behind those of `holders` until `changes` or `packed` fetches them.
    """

    def __init__(self, row_format: RowFormat, slots_max: int, holders: Sequence[HoldsStates] = ()) -> None:
        self.row_format = row_format
        self.slots_max = slots_max
        self._holders = tuple(holders)
        self.rows: Rows = np.empty(slots_max, row_format.dtype)
        # The same bytes without fields: numpy gathers and scatters these in half the time.
        self._raw: Rows = self.rows.view(f"V{row_format.row_bytes}")
        self.sequence_ids: dict[int, bytes] = {}
        """Slot → sequence id, only for open sequences that were given one."""
        self.evicted_total = 0
        self.store_reads_total = 0
        self._keys: list[bytes] = []
        self._owners: Int32Array = np.full(slots_max, -1, np.int32)
        self._stored: BoolArray = np.zeros(slots_max, np.bool_)
        self._touched: BoolArray = np.zeros(slots_max, np.bool_)
        self._last_used: Int64Array = np.zeros(slots_max, np.int64)
        self._mark: Int64Array = np.zeros(slots_max, np.int64)
        self._turn = 0
        self._free: list[int] = []
        self._index: dict[int, dict[bytes, int]] = {}
        self._complete: dict[int, bool] = {}
        self._older_rows: dict[int, Int64Array] = {}
        """Partition → committed rows of each model; not counted for the first."""
        self._before: list[_BeforeImage] = []
        self._touched_count = 0
        self._forgotten: dict[int, list[bytes]] = {}

    # ---- partitions

    def add_partition(self, partition: int, *, store_is_empty: bool, older_rows: Sequence[int] = ()) -> None:
        """Begin to hold a partition's streams. With an empty store no look-up goes to disk until one was evicted.

        `older_rows`: how many stored rows are of each of the row format's models but the first.
        """
        if partition in self._index:
            raise ValueError(f"partition {partition} is already held")
        self._index[partition] = {}
        self._older_rows[partition] = np.zeros(len(self.row_format.models), np.int64)
        self._older_rows[partition][1:] = older_rows or 0
        self._complete[partition] = store_is_empty

    def drop_partition(self, partition: int) -> None:
        """Forget a partition's streams. Its uncommitted rows must have been committed or rolled back before."""
        slots = np.fromiter(self._index[partition].values(), np.int64)
        if bool(self._touched[slots].any()):
            raise ValueError(f"partition {partition} still has uncommitted rows")
        self._release(slots)
        del self._index[partition], self._complete[partition], self._older_rows[partition]
        self._forgotten.pop(partition, None)

    # ---- look-up

    def slot_of(self, partition: int, key: bytes) -> int | None:
        """The slot of a stream in memory, None when it is not there (it may be in the store)."""
        return self._index.get(partition, {}).get(key)

    def key_of(self, slot: int) -> bytes:
        return self._keys[slot]

    def owner_of(self, slot: int) -> int:
        """The partition of a slot in use, -1 of a free one."""
        return int(self._owners[slot])

    def resolve(self, partitions: Int32Array, keys: Sequence[bytes], read_rows: ReadRows) -> Int64Array:
        """The slots (N,) of N streams, reading rows that are not in memory, one call of `read_rows` a partition.

        Raises what `read_rows` raises, RowCorrupted and StateFromAnotherModel; the table is then unchanged but for
        empty slots.
        """
        self._turn += 1
        slots = np.empty(len(keys), np.int64)
        first = int(partitions[0]) if len(partitions) else 0
        if bool((partitions == first).all()):
            slots[:] = self._resolve_one(first, keys, read_rows)
        else:
            for partition in np.unique(partitions).tolist():
                where = np.flatnonzero(partitions == partition)
                slots[where] = self._resolve_one(partition, [keys[i] for i in where.tolist()], read_rows)
        return slots

    def _resolve_one(self, partition: int, keys: Sequence[bytes], read_rows: ReadRows) -> Int64Array:
        index = self._index[partition]
        found = list(map(index.get, keys))
        if None in found:
            # Streams of this batch must not make room for others of it.
            self._last_used[[slot for slot in found if slot is not None]] = self._turn
            new_keys = list(dict.fromkeys(key for key, slot in zip(keys, found, strict=True) if slot is None))
            self._insert(partition, new_keys, read_rows)
            found = list(map(index.get, keys))
        slots = np.array(found, np.int64)  # every key has a slot now
        self._last_used[slots] = self._turn
        return slots

    def _insert(self, partition: int, keys: list[bytes], read_rows: ReadRows) -> None:
        loaded: list[tuple[int, bytes]] = []
        if not self._complete[partition]:
            self.store_reads_total += len(keys)
            loaded = [(i, row) for i, row in enumerate(read_rows(partition, keys)) if row is not None]
        rows, sequence_ids = self.row_format.unpack([row for _, row in loaded])
        slots = self._allocate(len(keys))
        self.rows[slots] = self.row_format.blank
        self._forget_held(slots)
        self._owners[slots] = partition
        self._last_used[slots] = self._turn
        self._index[partition].update(zip(keys, slots.tolist(), strict=True))
        for slot, key in zip(slots.tolist(), keys, strict=True):
            self._keys[slot] = key
        if loaded:
            stored_slots = slots[[i for i, _ in loaded]]
            self.rows[stored_slots] = rows
            self._stored[stored_slots] = True
            for slot, sequence_id in zip(stored_slots.tolist(), sequence_ids, strict=True):
                if sequence_id:
                    self.sequence_ids[slot] = sequence_id

    def _allocate(self, count: int) -> Int64Array:
        room = len(self._free) + self.slots_max - len(self._keys)
        if room < count:
            self._evict(max(count - room, self.slots_max // 8))
        reused = self._free[len(self._free) - min(count, len(self._free)) :]
        del self._free[len(self._free) - len(reused) :]
        start = len(self._keys)
        fresh = range(start, start + count - len(reused))
        self._keys.extend(b"" for _ in fresh)
        return np.array([*reused, *fresh], np.int64)

    def _evict(self, count: int) -> None:
        """Drop the streams unused for longest; those in use by this batch or not committed stay."""
        used = len(self._keys)
        candidates = np.flatnonzero(
            (self._owners[:used] >= 0) & ~self._touched[:used] & (self._last_used[:used] < self._turn)
        )
        if len(candidates) < count:
            raise MemoryError(f"{count} slots are needed, {len(candidates)} of {self.slots_max} can be evicted")
        oldest = candidates[np.argpartition(self._last_used[candidates], count - 1)[:count]]
        with_rows = oldest[self.rows["step"][oldest] > 0]
        for partition in np.unique(self._owners[with_rows]).tolist():
            self._complete[partition] = False
        for slot in oldest.tolist():
            del self._index[int(self._owners[slot])][self._keys[slot]]
        self.evicted_total += len(with_rows)
        self._release(oldest)

    def _release(self, slots: Int64Array) -> None:
        self._owners[slots] = -1
        self._stored[slots] = False
        released = slots.tolist()
        for slot in released:
            self._keys[slot] = b""
            self.sequence_ids.pop(slot, None)
        self._free.extend(released)

    # ---- uncommitted changes

    @property
    def touched_count(self) -> int:
        """Streams changed since the last commit."""
        return self._touched_count

    def touch(self, slots: Int64Array) -> None:
        """Copy aside the rows of slots that are about to change; repeated slots and calls cost little."""
        fresh = slots[~self._touched[slots]]
        if not len(fresh):
            return
        order = np.arange(len(fresh))
        self._mark[fresh] = order
        fresh = fresh[self._mark[fresh] == order]
        self._touched[fresh] = True
        self._touched_count += len(fresh)
        ids: dict[int, bytes] = {}
        if self.sequence_ids:
            ids = {slot: self.sequence_ids[slot] for slot in fresh.tolist() if slot in self.sequence_ids}
        self._before.append(_BeforeImage(fresh, self._copied(fresh), ids))

    def changes(self) -> dict[int, list[tuple[bytes, bytes | None]]]:
        """Per partition the rows to write since the last commit: packed, or None for a row to delete.

        A stream whose sequence began and ended between two commits has neither.
        """
        changed: dict[int, list[tuple[bytes, bytes | None]]] = {}
        for partition, slots in self._touched_by_partition().items():
            self._fetch_held(slots)
            is_open = self.rows["step"][slots] > 0
            kept, ended = slots[is_open], slots[~is_open & self._stored[slots]]
            ids = None
            if self.sequence_ids:
                ids = [self.sequence_ids.get(slot, b"") for slot in kept.tolist()]
            packed = self.row_format.pack(self._copied(kept), ids)
            kept_keys = map(self._keys.__getitem__, kept.tolist())
            rows: list[tuple[bytes, bytes | None]] = list(zip(kept_keys, packed, strict=True))
            rows.extend((self._keys[slot], None) for slot in ended.tolist())
            changed[partition] = rows
        for partition, keys in self._forgotten.items():
            changed.setdefault(partition, []).extend((key, None) for key in keys)
        return changed

    def _copied(self, slots: Int64Array) -> Rows:
        return self._raw[slots].view(self.row_format.dtype)

    def forget(self, partition: int, keys: Sequence[bytes]) -> None:
        """Delete stored rows that are not in memory, with the next commit: those of a model that is not served."""
        self._forgotten.setdefault(partition, []).extend(keys)

    def committed(self) -> None:
        """What `changes` returned is durable: drop the before-images."""
        if len(self.row_format.models) > 1:
            self._count_finished()
        for slots in self._touched_slots():
            self._stored[slots] = self.rows["step"][slots] > 0
            self._touched[slots] = False
        self._before.clear()
        self._touched_count = 0
        self._forgotten.clear()

    def _count_finished(self) -> None:
        """Older models begin no sequences, so their rows only become fewer."""
        for image in self._before:
            models = self.row_format.model_of(image.rows)
            was = np.flatnonzero((models > 0) & (image.rows["step"] > 0))
            after = self.rows[image.slots[was]]
            gone = was[(after["step"] == 0) | (self.row_format.model_of(after) != models[was])]
            for partition, model in zip(self._owners[image.slots[gone]].tolist(), models[gone].tolist(), strict=True):
                self._older_rows[partition][model] -= 1

    def rollback(self, partitions: Sequence[int] | None = None) -> Int64Array:
        """Bring rows back to the last commit, of all partitions or of some; returns the slots rolled back."""
        wanted = None if partitions is None else np.array(list(partitions), np.int32)
        rolled_back: list[Int64Array] = []
        kept: list[_BeforeImage] = []
        for image in self._before:
            mine = np.ones(len(image.slots), np.bool_)
            if wanted is not None:
                mine = np.isin(self._owners[image.slots], wanted)
            slots = image.slots[mine]
            self.rows[slots] = image.rows[mine]
            self._forget_held(slots)
            self._touched[slots] = False
            for slot in slots.tolist():
                self.sequence_ids.pop(slot, None)
                if slot in image.sequence_ids:
                    self.sequence_ids[slot] = image.sequence_ids[slot]
            rolled_back.append(slots)
            if not bool(mine.all()):
                kept.append(_BeforeImage(image.slots[~mine], image.rows[~mine], image.sequence_ids))
        self._before = kept
        self._touched_count = sum(len(image.slots) for image in kept)
        return np.concatenate([np.empty(0, np.int64), *rolled_back])

    def _touched_slots(self) -> list[Int64Array]:
        return [image.slots for image in self._before]

    def _touched_by_partition(self) -> dict[int, Int64Array]:
        slots = np.concatenate([np.empty(0, np.int64), *self._touched_slots()])
        owners = self._owners[slots]
        return {partition: slots[owners == partition] for partition in np.unique(owners).tolist()}

    # ---- states that an engine holds

    def stepped_by(self, stepper: object, slots: Int64Array) -> None:
        """From now on these slots are this stepper's, and what others hold of them is of sequences that ended."""
        for each in self._holders:
            if each is not stepper:
                each.forget(slots)

    def _fetch_held(self, slots: Int64Array) -> None:
        for each in self._holders:
            each.fetch(slots, self.rows["state"][:, : each.state_size])

    def _forget_held(self, slots: Int64Array) -> None:
        for each in self._holders:
            each.forget(slots)

    # ---- questions

    def packed(self, slot: int) -> bytes:
        """The row of a slot as it would be stored now."""
        self._fetch_held(np.array([slot]))
        return self.row_format.pack(self.rows[[slot]], [self.sequence_ids.get(slot, b"")])[0]

    def older_rows(self) -> dict[bytes, int]:
        """Committed rows of the row format's models but the first, in memory or not, by fingerprint."""
        models = self.row_format.models
        counts = sum(self._older_rows.values(), np.zeros(len(models), np.int64))
        return dict(zip(models[1:], counts[1:].tolist(), strict=True))

    def open_streams(self) -> int:
        """Streams in memory with an open sequence."""
        used = len(self._keys)
        return int(((self.rows["step"][:used] > 0) & (self._owners[:used] >= 0)).sum())

    def streams(self) -> int:
        """Streams in memory, with or without an open sequence."""
        return len(self._keys) - len(self._free)


def slots_for(cache_bytes: int, row_format: RowFormat, batch_records: int) -> int:
    """How many slots fit into `cache_bytes`; at least four batches' worth, so that one batch always finds room."""
    return max(cache_bytes // (row_format.row_bytes + BYTES_PER_STREAM_OVERHEAD), 4 * batch_records)
