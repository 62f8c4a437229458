"""What a rebalance between two members looks like to their listeners, in both group protocols."""

from __future__ import annotations

import pytest

from tests.group_member import PROTOCOLS, Join, deadline, fill, places, read, wait_until_assigned
from worker.adapters.kafka_producer import KafkaProducer


@pytest.mark.parametrize("protocol", ["cooperative", "KIP-848"])
def test_a_second_member_takes_partitions_over_and_gives_them_back(
    protocol: str, join: Join, producer: KafkaProducer, topic: str
) -> None:
    # The embedded broker waits for most of a session before it ends a rebalance of a classic group.
    fast = {} if protocol == "KIP-848" else {"session.timeout.ms": 3000, "heartbeat.interval.ms": 100}
    first, heard_by_first = join(**PROTOCOLS[protocol], **fast)
    wait_until_assigned(first, heard_by_first, {0, 1, 2, 3})
    first.start_at(dict.fromkeys(range(4), 0))
    second, heard_by_second = join(**PROTOCOLS[protocol], **fast)
    with deadline() as check:
        while len(heard_by_first.owned) != 2 or len(heard_by_second.owned) != 2:
            assert first.poll_batch(10, 0.02) is None
            assert second.poll_batch(10, 0.02) is None
            check()
    assert heard_by_first.owned | heard_by_second.owned == {0, 1, 2, 3}
    second.start_at(dict.fromkeys(heard_by_second.owned, 0))
    for partition in range(4):
        fill(producer, topic, partition, 1)
    assert {partition for partition, _ in places(read(first, 2))} == heard_by_first.owned
    assert {partition for partition, _ in places(read(second, 2))} == heard_by_second.owned
    second.close()
    assert heard_by_second.events[-1][0] == "revoked"
    assert heard_by_second.owned == set()
    wait_until_assigned(first, heard_by_first, {0, 1, 2, 3})
