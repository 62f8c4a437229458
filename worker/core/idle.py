"""Which streams of a partition have been idle for too long, in event time.

One entry (deadline, key) a stream with an open sequence. An entry's deadline is a lower bound: it is not moved at
every sample, but checked and put back when it comes due. The index lives in memory and is rebuilt from the rows' event
times when a partition is opened; keeping it on disk too would cost a write per sample and tell nothing that the rows
do not.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator


class IdleIndex:
    """Deadlines of one partition; `timeout_ms` is event time."""

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._heap: list[tuple[int, bytes]] = []
        self._deadlines: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._deadlines)

    def watch(self, key: bytes, event_time: int) -> None:
        """A stream's sequence is open and its last sample has this event time; cheap when already watched."""
        deadline = event_time + self._timeout_ms
        known = self._deadlines.get(key)
        if known is None or deadline < known:
            self._push(key, deadline)

    def due_keys(self, watermark: int) -> list[bytes]:
        """Keys with an entry that is due at this watermark; they may have moved on since. Changes nothing."""
        due: dict[bytes, None] = {}
        pending = [0] if self._heap else []
        while pending:
            at = pending.pop()
            if self._heap[at][0] <= watermark:
                due[self._heap[at][1]] = None
                pending.extend(child for child in (2 * at + 1, 2 * at + 2) if child < len(self._heap))
        return list(due)

    def expire(self, watermark: int, last_event_time: Callable[[bytes], int | None]) -> Iterator[bytes]:
        """Yield and forget the streams whose last event time + timeout <= watermark, in (deadline, key) order.

        `last_event_time(key)` is None for a stream without an open sequence.
        """
        while self._heap and self._heap[0][0] <= watermark:
            deadline, key = heapq.heappop(self._heap)
            if self._deadlines.get(key) != deadline:
                continue
            del self._deadlines[key]
            event_time = last_event_time(key)
            if event_time is None:
                continue
            if event_time + self._timeout_ms > deadline:
                self._push(key, event_time + self._timeout_ms)
            else:
                yield key

    def _push(self, key: bytes, deadline: int) -> None:
        self._deadlines[key] = deadline
        heapq.heappush(self._heap, (deadline, key))
