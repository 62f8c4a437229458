"""What a stopped worker left on disk."""

from __future__ import annotations

from pathlib import Path

from rocksdict import Options, Rdict

from worker.core.state_row import DecodedRow, decode_row


def open_rows(directory: Path, topic: str, partitions: int) -> dict[tuple[int, bytes], DecodedRow]:
    """(partition, stream key) → row, of all stores of a topic; read without the worker's own store class."""
    rows = {}
    for partition in range(partitions):
        path = directory / topic / str(partition)
        if not path.exists():
            continue
        database = Rdict(str(path), Options(raw_mode=True))
        for key, value in database.items():
            if key[:1] == b"r":
                rows[(partition, key[1:])] = decode_row(value)
        database.close()
    return rows
