"""Says when input cannot be read because a producer's transaction is open before it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from worker.metrics import Metrics

log = logging.getLogger(__name__)

LOG_SECONDS = 5.0
"""A transaction that is open for longer is worth a line, and one more each time."""


@dataclass(frozen=True, slots=True)
class _Stuck:
    offset: int
    since: float
    logged: float


class HeldBackInput:
    """With read_committed a partition stands still at the first open transaction, whoever opened it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._stuck: dict[int, _Stuck] = {}

    def look(self, held_back: Mapping[int, tuple[int, int]], now: float) -> None:
        """Partition → last stable offset and how many records lie behind it; `now` in seconds."""
        self._metrics.held_back({index: records for index, (_, records) in held_back.items()})
        before, self._stuck = self._stuck, {}
        for index, (offset, records) in held_back.items():
            stuck = before.get(index)
            if stuck is None or stuck.offset != offset:
                stuck = _Stuck(offset, now, now)
            elif now - stuck.logged >= LOG_SECONDS:
                log.warning(
                    "partition %d: %d records from offset %d on wait for another producer's transaction, open for %.0f "
                    "s; it ends with that producer or at its transaction.timeout.ms",
                    index,
                    records,
                    offset,
                    now - stuck.since,
                )
                stuck = _Stuck(offset, stuck.since, now)
            self._stuck[index] = stuck
