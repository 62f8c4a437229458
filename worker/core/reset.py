"""Where a reset moves each partition's offset to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from worker.core.restore import Log
from worker.errors import ConfigError

Where = Literal["earliest", "latest", "offset", "timestamp"]


@dataclass(frozen=True, slots=True)
class ResetTo:
    """`offset` is the next input offset where `where` is "offset"; "timestamp" is decided by the broker's index."""

    where: Where
    offset: int = 0


def reset_targets(
    to: ResetTo, logs: Mapping[int, Log], found_by_time: Mapping[int, int | None] | None = None
) -> dict[int, int]:
    """The next input offset of each partition of `logs`.

    `found_by_time`: the first offset at or after the timestamp, None where every record is older, which means the end.
    Raises ConfigError for an offset that a partition does not hold.
    """
    by_time = found_by_time or {}
    targets: dict[int, int] = {}
    for partition, log in logs.items():
        if to.where == "earliest":
            targets[partition] = log.low
        elif to.where == "latest":
            targets[partition] = log.high
        elif to.where == "timestamp":
            found = by_time.get(partition)
            targets[partition] = log.high if found is None else found
        elif log.low <= to.offset <= log.high:
            targets[partition] = to.offset
        else:
            raise ConfigError(
                f"partition {partition} holds offsets {log.low} to {log.high}, not {to.offset}",
                "give an offset that all partitions hold, or choose some with --partition",
            )
    return targets
