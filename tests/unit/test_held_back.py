"""What is said of input that stands still behind an open transaction."""

from __future__ import annotations

import logging

import pytest

from worker.held_back import LOG_SECONDS, HeldBackInput
from worker.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1", model="m")


def records(metrics: Metrics, partition: int) -> float | None:
    return metrics.registry.get_sample_value("lstm_worker_input_held_back_records", {"partition": str(partition)})


def test_a_transaction_that_stays_open_is_named_once_every_few_seconds(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    watch = HeldBackInput(metrics)
    with caplog.at_level(logging.WARNING):
        for tenth in range(int(LOG_SECONDS * 25)):
            watch.look({3: (70, 5)}, tenth / 10)
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "partition 3: 5 records from offset 70 on wait for another producer's transaction, open for 5 s",
        "partition 3: 5 records from offset 70 on wait for another producer's transaction, open for 10 s",
    ]


def test_transactions_that_come_and_go_are_not_worth_a_line(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    watch = HeldBackInput(metrics)
    for second in range(60):
        watch.look({0: (second, 9), 1: (4, 1)} if second % 3 else {0: (second, 9)}, float(second))
    assert caplog.records == []


def test_the_gauge_shows_only_partitions_that_wait(metrics: Metrics) -> None:
    watch = HeldBackInput(metrics)
    watch.look({0: (70, 5), 1: (2, 1)}, 0.0)
    assert (records(metrics, 0), records(metrics, 1)) == (5, 1)
    watch.look({1: (2, 4)}, 1.0)
    assert (records(metrics, 0), records(metrics, 1)) == (None, 4)
