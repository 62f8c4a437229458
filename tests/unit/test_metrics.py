"""The catalogue of metrics and what moves them."""

from __future__ import annotations

from collections import Counter

from tools.metrics_page import PAGE, catalogue, page
from worker.core.types import DeadLetter, EndedBy, Rejection
from worker.metrics import PREFIX, Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(PREFIX + name, labels)


def test_every_name_has_the_prefix_and_a_help_text():
    assert all(name.startswith(PREFIX) and text.endswith(".") for name, _, _, text in catalogue())


def test_no_label_can_hold_a_stream():
    assert not {label for _, _, labels, _ in catalogue() for label in labels} & {"key", "stream", "sequence"}


def test_the_committed_page_is_what_the_catalogue_says():
    assert PAGE.read_text("utf-8") == page(), "run `python -m tools.metrics_page`"


def test_a_batch_counts_records_outputs_and_sequences():
    metrics = Metrics(version="1", model="abc")
    metrics.batch({0: 3, 2: 4}, 6, 0.5)
    metrics.sequences(Counter(started=2, duplicates=1), Counter({EndedBy.LENGTH: 2}), 0)
    assert value(metrics, "records_consumed_total", partition="2") == 4
    assert value(metrics, "predictions_produced_total") == 6
    assert value(metrics, "sequences_ended_total", ended_by="length") == 2
    assert value(metrics, "duplicates_total") == 1


def test_an_older_model_is_seen_until_its_last_sequence_has_ended():
    metrics = Metrics(version="1", model="abc")
    metrics.older_models({bytes.fromhex("5f0c9a1e" * 4): 3})
    assert value(metrics, "older_model_sequences", model="5f0c9a1e") == 3
    metrics.older_models({bytes.fromhex("5f0c9a1e" * 4): 0})
    assert value(metrics, "older_model_sequences", model="5f0c9a1e") == 0


def test_dead_letters_count_when_they_are_committed():
    metrics = Metrics(version="1", model="abc")
    letter = DeadLetter(0, 0, 0, b"k", b"v", None, Rejection("not_json", "no"))
    metrics.committed(0.01, 1000.0, [letter, letter])
    assert value(metrics, "dead_letters_total", reason="not_json") == 2
    assert value(metrics, "commits_total", result="ok") == 1


def test_partitions_that_are_gone_leave_no_series_behind():
    metrics = Metrics(version="1", model="abc")
    metrics.partitions({0: "running", 1: "restoring"}, {0: 2000, 1: -1}, {0: 5})
    assert value(metrics, "ready") == 0
    assert value(metrics, "event_time_watermark_seconds", partition="0") == 2.0
    metrics.partitions({0: "running"}, {0: 2000}, {})
    assert value(metrics, "partition_state", partition="1", state="restoring") is None
    assert value(metrics, "consumer_lag_records", partition="0") is None
    assert value(metrics, "ready") == 1
