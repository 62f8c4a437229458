"""Reading a topic to its end, without guessing how long that takes."""

from __future__ import annotations

from worker.adapters.clock import SystemClock
from worker.adapters.kafka_follower import FollowedRecord, Follower

SECONDS_MAX = 90.0


def read_to_the_end(reader: Follower, partitions: int) -> list[FollowedRecord]:
    """Everything up to the (stable) end of each partition; closes the reader."""
    found: list[FollowedRecord] = []
    clock = SystemClock()
    deadline = clock.monotonic() + SECONDS_MAX
    while len(reader.at_end) < partitions:
        found.extend(reader.poll(0.2))
        assert clock.monotonic() < deadline, f"only {sorted(reader.at_end)} of {partitions} partitions were read"
    reader.close()
    return found
