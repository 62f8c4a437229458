"""The real clock; the only place of the package that reads time."""

from __future__ import annotations

import time


class SystemClock:
    """The machine's wall clock and its monotonic clock."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the epoch; may jump when the machine's clock is set."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that never go back."""
        return time.monotonic()
