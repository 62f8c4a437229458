"""A simulated local store: batches are atomic and ordered; a crash loses a suffix of those that were not flushed."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from random import Random
from typing import NamedTuple

BUFFERED_BATCHES_MAX = 6
"""Older batches are flushed by themselves, as a full memtable is."""


class Row(NamedTuple):
    """One stream's state: how many samples, a digest of them in order, the input offset of the last."""

    samples: int
    digest: int
    last_offset: int


class Position(NamedTuple):
    input_next_offset: int
    changelog_next_offset: int


Rows = Mapping[str, Row | None]


class SimulatedDisk:
    """The store of one partition in one worker's state directory."""

    def __init__(self) -> None:
        self.corrupted = False
        self.wipe()

    def wipe(self) -> None:
        self.corrupted = False
        self._flushed: dict[str, Row] = {}
        self._flushed_state: tuple[Position | None, int] = (None, -1)
        self._buffered: list[tuple[Rows, Position | None, int]] = []

    @property
    def position(self) -> Position | None:
        positions = [position for _, position, _ in self._buffered if position is not None]
        return positions[-1] if positions else self._flushed_state[0]

    @property
    def written_at(self) -> int:
        """When the last batch was written; -1 before the first."""
        return self._buffered[-1][2] if self._buffered else self._flushed_state[1]

    def rows(self) -> dict[str, Row]:
        """A damaged store has lost its rows and does not tell."""
        found: dict[str, Row | None] = dict(self._flushed)
        for rows, _, _ in self._buffered:
            found.update(rows)
        return {key: row for key, row in found.items() if row is not None and not self.corrupted}

    def copy(self) -> SimulatedDisk:
        """What a backup holds."""
        return deepcopy(self)

    def write(self, rows: Rows, position: Position | None, now: int) -> None:
        """One atomic batch; None deletes a row. `position` is None only in a mutant."""
        self._buffered.append((rows, position, now))
        if len(self._buffered) > BUFFERED_BATCHES_MAX:
            self._flush(1)

    def flush(self) -> None:
        """What closing does."""
        self._flush(len(self._buffered))

    def crash(self, random: Random) -> None:
        del self._buffered[random.randint(0, len(self._buffered)) :]

    def _flush(self, count: int) -> None:
        for rows, position, now in self._buffered[:count]:
            for key, row in rows.items():
                if row is None:
                    self._flushed.pop(key, None)
                else:
                    self._flushed[key] = row
            self._flushed_state = position or self._flushed_state[0], now
        del self._buffered[:count]
