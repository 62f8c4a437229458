"""The whole catalogue of metrics: names, help, labels and units. Updated per batch or commit, never per record.

No label holds a stream's key. Names are part of the contract with dashboards and alerts in deploy/.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from worker.core.types import DeadLetter, EndedBy

PREFIX = "lstm_worker_"
STAGES = ("poll", "decode", "route", "step", "encode", "produce", "commit", "store", "idle")
COMMIT_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
BATCH_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096)
LATENCY_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30, 300)


class Metrics:
    """All metrics of one worker, in a registry of its own."""

    def __init__(self, *, version: str, model: str, librdkafka: str = "") -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(PREFIX + name, text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(PREFIX + name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(PREFIX + name, text, buckets=buckets, registry=self.registry)

        self.stage_seconds = counter(
            "stage_seconds_total", "Seconds of the loop by stage; all stages add up to wall time.", "stage"
        )
        self.records_consumed = counter("records_consumed_total", "Input records processed.", "partition")
        self.predictions_produced = counter("predictions_produced_total", "Output records produced.")
        self.dead_letters = counter("dead_letters_total", "Records sent to the dead-letter topic.", "reason")
        self.duplicates = counter("duplicates_total", "Samples skipped because their step was seen before.")
        self.gaps = counter("gaps_total", "Samples whose step skipped ahead.")
        self.boundaries_without_sequence = counter(
            "boundaries_without_sequence_total", "Boundaries on streams without an open sequence; nothing published."
        )
        self.sequences_started = counter("sequences_started_total", "Sequences begun.")
        self.sequences_ended = counter("sequences_ended_total", "Sequences ended, by reason.", "ended_by")
        self.non_finite_states = counter("non_finite_states_total", "Samples whose numbers were not finite.")
        self._forecast_gauges(gauge)
        self.batch_records = histogram("batch_records", "Records of a polled batch.", BATCH_BUCKETS)
        self.latency = histogram(
            "input_age_seconds", "Age of a batch's newest record when its outputs were produced.", LATENCY_BUCKETS
        )
        self.commits = counter("commits_total", "Commits by result.", "result")
        self.commit_seconds = histogram("commit_seconds", "Duration of a commit.", COMMIT_BUCKETS)
        self.last_commit = gauge("last_commit_timestamp_seconds", "Wall clock of the last commit.")
        self.producer_recycles = counter(
            "producer_recycles_total", "Producers replaced after an indefinite error.", "reason"
        )
        self.rebalances = counter("rebalances_total", "Rebalance callbacks.", "type")
        self.partitions_assigned = gauge("partitions_assigned", "Partitions that this worker owns.")
        self.partition_state = gauge("partition_state", "1 for the state that a partition is in.", "partition", "state")
        self.consumer_lag = gauge(
            "consumer_lag_records", "Records between the position and the log's end.", "partition"
        )
        self.input_held_back = gauge(
            "input_held_back_records", "Records that wait for an open transaction of their producer.", "partition"
        )
        self.watermark = gauge("event_time_watermark_seconds", "Highest event time seen.", "partition")
        self.streams_open = gauge("streams_open", "Streams in memory with an open sequence.")
        self.older_sequences = gauge("older_model_sequences", "Open sequences of models in model.previous.", "model")
        self.streams_in_memory = gauge("streams_in_memory", "Streams in memory.")
        self.streams_evicted = gauge("streams_evicted", "Streams moved from memory to disk since the start.")
        self.store_reads = gauge("store_reads", "Rows looked up on disk since the start.")
        self.uncommitted_streams = gauge("uncommitted_streams", "Streams changed since the last commit.")
        text = "Age of the longest silent open sequence in memory."
        self.oldest_sequence = gauge("oldest_open_sequence_age_seconds", text)
        self.restore_remaining = gauge("restore_remaining_offsets", "Changelog offsets still to read.", "partition")
        self.restored_records = counter("restore_records_total", "Changelog records written to stores.")
        self.store_corruptions = counter("store_corruptions_total", "Stores set aside because they were damaged.")
        self.store_wipes = counter("store_wipes_total", "Stores rebuilt from nothing, by reason.", "reason")
        self.ready = gauge("ready", "1 when every assigned partition runs.")
        text = "When the last worker on this state directory ended other than by request."
        self.previous_exit = gauge("previous_exit_timestamp_seconds", text, "reason", "exit_code")
        self.build = gauge("build_info", "Constant 1; what is running.", "version", "model", "librdkafka")
        self.build.labels(version, model, librdkafka).set(1)
        for stage in STAGES:
            self.stage_seconds.labels(stage)
        for result in ("ok", "aborted", "unknown", "fenced"):
            self.commits.labels(result)

    def ended_before(self, reason: str, exit_code: int, at_seconds: float) -> None:
        """Why the last worker on this state directory ended."""
        self.previous_exit.labels(reason, str(exit_code)).set(at_seconds)

    def stage(self, name: str, seconds: float) -> None:
        """Time of the loop that went into a stage."""
        self.stage_seconds.labels(name).inc(seconds)

    def rebalance(self, kind: str) -> None:
        """`assigned`, `revoked` or `lost`."""
        self.rebalances.labels(kind).inc()

    def batch(self, records_by_partition: Mapping[int, int], predictions: int, age_seconds: float) -> None:
        """A processed batch."""
        for partition, records in records_by_partition.items():
            self.records_consumed.labels(str(partition)).inc(records)
        self.batch_records.observe(sum(records_by_partition.values()))
        self.predictions_produced.inc(predictions)
        self.latency.observe(max(age_seconds, 0.0))

    def sequences(self, counts: Tally[str], ended: Tally[EndedBy], not_finite: int) -> None:
        """What routing a batch counted."""
        self.duplicates.inc(counts["duplicates"])
        self.gaps.inc(counts["gaps"])
        self.boundaries_without_sequence.inc(counts["boundaries_without_sequence"])
        self.sequences_started.inc(counts["started"])
        self.non_finite_states.inc(not_finite)
        for reason, count in ended.items():
            self.sequences_ended.labels(reason.name.lower()).inc(count)

    def _forecast_gauges(self, gauge: Callable[..., Gauge]) -> None:
        self.forecast_drift = gauge("forecast_drift", "Mean increment a step of calibrated forecasts; 0 if they hold.")
        self.forecast_slope = gauge("forecast_slope", "Slope of that increment on the forecast before; 0 if they hold.")
        self.forecast_slope_expected = gauge(
            "forecast_slope_expected", "That slope on the calibration's own recordings; NaN without a calibration."
        )

    def calibrated(self, slope: float) -> None:
        """The slope that the calibration's own recordings had."""
        self.forecast_slope_expected.set(slope)

    def forecasts_drift(self, mean: float, slope: float) -> None:
        """See `worker.core.forecast_drift`."""
        self.forecast_drift.set(mean)
        self.forecast_slope.set(slope)

    def committed(self, seconds: float, now_seconds: float, letters: Sequence[DeadLetter]) -> None:
        """A commit that succeeded, with the dead letters that it carried."""
        self.commits.labels("ok").inc()
        self.commit_seconds.observe(seconds)
        self.last_commit.set(now_seconds)
        for reason, count in Tally(letter.rejection.reason for letter in letters).items():
            self.dead_letters.labels(reason).inc(count)

    def aborted(self) -> None:
        """A transaction that was aborted; its input is read again."""
        self.commits.labels("aborted").inc()

    def producer_recycled(self, reason: str) -> None:
        """A transactional producer was replaced."""
        self.producer_recycles.labels(reason).inc()

    def partitions(self, states: Mapping[int, str], watermarks_ms: Mapping[int, int], lags: Mapping[int, int]) -> None:
        """Replace what is known of the owned partitions."""
        for family in (self.partition_state, self.watermark, self.consumer_lag):
            family.clear()
        self.partitions_assigned.set(len(states))
        self.ready.set(all(state == "running" for state in states.values()))
        for partition, state in states.items():
            self.partition_state.labels(str(partition), state).set(1)
        for partition, watermark in watermarks_ms.items():
            if watermark >= 0:
                self.watermark.labels(str(partition)).set(watermark / 1000)
        for partition, lag in lags.items():
            self.consumer_lag.labels(str(partition)).set(lag)

    def held_back(self, records: Mapping[int, int]) -> None:
        """Input records behind an open transaction by partition; only those that have some."""
        self.input_held_back.clear()
        for partition, count in records.items():
            self.input_held_back.labels(str(partition)).set(count)

    def restoring(self, remaining: Mapping[int, int]) -> None:
        """Changelog offsets left by partition; only those that restore."""
        self.restore_remaining.clear()
        for partition, offsets in remaining.items():
            self.restore_remaining.labels(str(partition)).set(offsets)

    def restored(self, records: int) -> None:
        """Rows written to a store."""
        self.restored_records.inc(records)

    def store_corrupted(self) -> None:
        """A damaged store was set aside."""
        self.store_corruptions.inc()

    def store_wiped(self, reason: str) -> None:
        """A store is rebuilt from nothing."""
        self.store_wipes.labels(reason).inc()

    def older_models(self, rows: Mapping[bytes, int]) -> None:
        """Open sequences of older models by fingerprint."""
        for model, count in rows.items():
            self.older_sequences.labels(model[:4].hex()).set(count)

    def streams(self, *, open_streams: int, in_memory: int, evicted: int, store_reads: int, uncommitted: int) -> None:
        """Counts of the stream table."""
        self.streams_open.set(open_streams)
        self.streams_in_memory.set(in_memory)
        self.streams_evicted.set(evicted)
        self.store_reads.set(store_reads)
        self.uncommitted_streams.set(uncommitted)
