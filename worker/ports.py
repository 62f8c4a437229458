"""Protocols between the loop and its edges; adapters implement them, tests use plain in-memory versions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.core.types import Float32Array, Headers, Int32Array, Int64Array, RecordBatch


class Clock(Protocol):
    """Time, injectable; only adapters/clock.py reads the real one."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that never go back."""


class Stepper(Protocol):
    """An engine that advances many streams' states; its contract is the whole batch in record order."""

    features: int
    state_size: int
    columns: int
    """Of its answers: K logits, and K scores behind them where the program has state weights."""
    releases_lock: bool
    """Whether `step_batch` runs without the interpreter's lock, so that another thread goes on beside it."""

    def step_batch(
        self, slots: Int64Array, features: Float32Array, states: Float32Array, steps: Int32Array
    ) -> Float32Array:
        """Step record i's sample `features[i]` on row `states[slots[i]]`, in place; return (N, columns) float32.

        slots (N,) may repeat: then the rows' order is the order of the steps. steps (N,) is the 1-based model step
        of each record; where it is 1 the row's content is ignored and the initial state is used.
        """


@dataclass(slots=True, frozen=True)
class StorePosition:
    """How far a partition's store has come; written in the same batch as the rows.

    Both offsets are exclusive ends. `watermark_ms` is the partition's highest event time, -1 before the first record.
    """

    input_next_offset: int
    changelog_next_offset: int = 0
    watermark_ms: int = -1


class Store(Protocol):
    """The state rows of one input partition on local disk."""

    @property
    def position(self) -> StorePosition | None:
        """The position of the last write; None for a store that was never written."""

    @property
    def written_at_ms(self) -> int:
        """Wall clock of the last write, milliseconds; -1 before the first."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Rows of the given stream keys, None where there is none. Raises StoreCorrupted."""

    def write(self, rows: Iterable[tuple[bytes, bytes | None]], position: StorePosition) -> None:
        """Put rows (None deletes) and the position in one atomic batch. Raises StoreFull, StoreCorrupted."""

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        """All (stream key, row), in key order; raises StoreCorrupted instead of ending early."""

    def is_empty(self) -> bool:
        """Whether the store holds no row."""

    def close(self) -> None:
        """Flush and release the directory's lock; idempotent."""


class Consumer(Protocol):
    """The consumer-group member of the input topic."""

    def poll_batch(self, records_max: int, timeout: float) -> RecordBatch | None:
        """Up to `records_max` records; None when nothing came within `timeout` seconds. Runs rebalance callbacks."""

    def start_at(self, offsets: dict[int, int]) -> None:
        """Begin to fetch assigned partitions at these next offsets (partition → offset) and resume them."""

    def committed(self, partitions: Sequence[int]) -> dict[int, int | None]:
        """The group's committed next offsets; None where there is none. Blocks up to the request timeout."""

    def commit(self, offsets: dict[int, tuple[int, str]]) -> None:
        """Commit next offsets (partition → offset, metadata) and wait for the answer."""

    def consumer_lag(self) -> dict[int, int]:
        """Records between the position and the log's end, per partition, as far as known without asking."""

    def held_back(self) -> dict[int, tuple[int, int]]:
        """Partition → last stable offset and records behind it, where a transaction is open; without asking."""

    def close(self) -> None:
        """Leave the group (static members stay) and run the revoke callback."""


class RebalanceListener(Protocol):
    """Called from inside `Consumer.poll_batch` and `Consumer.close`; bounded work only."""

    def on_assigned(self, partitions: Sequence[int]) -> None:
        """New partitions; they stay paused until `Consumer.start_at`."""

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Last chance to commit; the partitions are gone when this returns."""

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Already somebody else's: drop, never commit."""


class RecordSink(Protocol):
    """Takes records to produce; order is kept per partition."""

    def produce_many(
        self,
        topic: str,
        partitions: Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        headers: Sequence[Headers | None] | None = None,
    ) -> None:
        """Queue records; waits while the local queue is full. Raises ProduceFailed on a refused record."""


class Producer(RecordSink, Protocol):
    """Produces without transactions."""

    def flush(self) -> None:
        """Wait until everything queued is delivered. Raises ProduceFailed when a record was not."""

    def close(self) -> None:
        """Drop what is queued and disconnect; idempotent."""


Hook = Callable[[str], None]
"""A failpoint hook: called with the name of each step of loop and commit; a no-op unless a test installs one."""
