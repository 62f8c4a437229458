"""The simplest thing that keeps the Store contract: a dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from worker.ports import StorePosition


class DictStore:
    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.position: StorePosition | None = None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.rows.get(key) for key in keys]

    def write(self, rows: Iterable[tuple[bytes, bytes | None]], position: StorePosition) -> None:
        changes = list(rows)
        for key, row in changes:
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row
        self.position = position

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(self.rows.items()))

    def is_empty(self) -> bool:
        return not self.rows

    def close(self) -> None:
        pass
