"""The simulated Kafka does what a real one does where exactly-once depends on it."""

from __future__ import annotations

from random import Random

import pytest

from tests.sim.kafka import OFFSETS, Kafka, ProducerFenced, Refused, Reply

OUTPUT = ("output", 0)
MEMBER = "a-1"


@pytest.fixture
def kafka() -> Kafka:
    kafka = Kafka(1, Random(1))
    assert kafka.group.join("a") == MEMBER
    kafka.group.balance(1, Random(1))
    assert kafka.group.take(MEMBER) == {0}
    return kafka


def initialised(kafka: Kafka, name: str = "id") -> int:
    """The new producer's epoch, once what was open is over."""
    while isinstance(found := kafka.init_producer_id(name), Reply):
        kafka.write_marker(name)
    return found[1]


def produced(kafka: Kafka, epoch: int, value: str, name: str = "id") -> int:
    assert kafka.add_partition(name, epoch, OUTPUT) is Reply.OK
    return kafka.produce(name, epoch, OUTPUT, "key", value)


def visible(kafka: Kafka) -> list[str]:
    log = kafka.logs[OUTPUT]
    return [entry.value for entry in log.read(0, log.high_watermark)]


def test_records_become_readable_with_the_marker_and_not_with_the_decision(kafka: Kafka) -> None:
    epoch = initialised(kafka)
    produced(kafka, epoch, "x")
    assert kafka.end_transaction("id", epoch, commit=True) is Reply.OK
    assert (kafka.logs[OUTPUT].last_stable_offset, visible(kafka)) == (0, [])
    assert kafka.write_marker("id")
    assert (kafka.logs[OUTPUT].last_stable_offset, visible(kafka)) == (2, ["x"])


def test_an_open_transaction_hides_later_ones_of_others(kafka: Kafka) -> None:
    produced(kafka, initialised(kafka), "open")
    other = initialised(kafka, "other")
    produced(kafka, other, "committed", "other")
    kafka.end_transaction("other", other, commit=True)
    kafka.write_marker("other")
    assert visible(kafka) == []


def test_a_new_producer_of_the_same_id_ends_the_old_transaction_and_fences_the_old_producer(kafka: Kafka) -> None:
    old = initialised(kafka)
    produced(kafka, old, "x")
    assert initialised(kafka) > old
    assert visible(kafka) == []
    with pytest.raises(ProducerFenced):
        kafka.produce("id", old, OUTPUT, "key", "y")


def test_a_delayed_request_ends_a_later_transaction_of_the_same_epoch(kafka: Kafka) -> None:
    epoch = initialised(kafka)
    produced(kafka, epoch, "first")
    kafka.end_transaction("id", epoch, commit=True)
    kafka.write_marker("id")
    produced(kafka, epoch, "second")
    assert kafka.end_transaction("id", epoch, commit=True) is Reply.OK, "the duplicate of the first request"
    kafka.write_marker("id")
    assert visible(kafka) == ["first", "second"]


def test_a_stable_read_of_offsets_waits_for_the_marker(kafka: Kafka) -> None:
    epoch = initialised(kafka)
    kafka.add_partition("id", epoch, OFFSETS)
    kafka.send_offsets("id", epoch, {0: (7, "")}, kafka.group.generation, MEMBER)
    assert kafka.committed(0) is Reply.UNSTABLE_OFFSET_COMMIT
    assert kafka.committed(0, stable=False) is None
    kafka.end_transaction("id", epoch, commit=True)
    assert kafka.committed(0) is Reply.UNSTABLE_OFFSET_COMMIT
    kafka.write_marker("id")
    assert kafka.committed(0) == (7, "")


def test_an_offset_commit_is_checked_for_member_and_generation_and_not_for_ownership(kafka: Kafka) -> None:
    epoch = initialised(kafka)
    kafka.add_partition("id", epoch, OFFSETS)
    with pytest.raises(Refused, match="unknown member"):
        kafka.send_offsets("id", epoch, {0: (7, "")}, kafka.group.generation, "stranger")
    with pytest.raises(Refused, match="illegal generation"):
        kafka.send_offsets("id", epoch, {0: (7, "")}, kafka.group.generation - 1, MEMBER)
    kafka.send_offsets("id", epoch, {0: (7, "")}, -1, "")
    kafka.group.give_up(MEMBER, {0})
    kafka.send_offsets("id", epoch, {0: (8, "")}, kafka.group.generation, MEMBER)


def test_compaction_keeps_offsets_and_newest_rows_and_a_tombstone_for_the_retention_after_the_rows_before_it(
    kafka: Kafka,
) -> None:
    epoch = initialised(kafka)
    for value in ("old", "new", None):
        produced(kafka, epoch, value)
    kafka.end_transaction("id", epoch, commit=True)
    kafka.write_marker("id")
    log = kafka.logs[OUTPUT]
    assert log.compact(now=100, tombstone_retention=5) == 2
    assert [(entry.offset, entry.value) for entry in log.read(0, 9)] == [(2, None)]
    assert log.compact(now=105, tombstone_retention=5) == 0
    assert log.compact(now=106, tombstone_retention=5) == 1
    assert (log.read(0, 9), log.high_watermark) == ([], 4)
