"""Recordings as live streams: order, pace, repetition, records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson
import pytest

from worker.core.codec import input_decoder
from worker.core.types import Headers, Kind, RecordBatch
from worker.model.datasets import Recording
from worker.replay import PARTITION_BY_KEY, Controls, Pace, SampleEncoder, replay


class Sent:
    """A producer that keeps what it is given."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.headers: list[Headers | None] = []
        self.times: list[int] = []
        self.partitions: set[int] = set()
        self.flushed = 0

    def produce_many(
        self,
        topic: str,
        partitions: Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        headers: Sequence[Headers | None] | None = None,
    ) -> None:
        assert topic == "samples"
        self.partitions.update(partitions)
        self.keys += [key for key in keys if key is not None]
        self.values += [value for value in values if value is not None]
        self.times += timestamps_ms
        self.headers += headers or [None] * len(keys)

    def flush(self) -> None:
        self.flushed = len(self.keys)


class Time:
    """A clock that stands still until somebody waits for it: also what `replay` sleeps with."""

    def __init__(self, set_after: float = np.inf) -> None:
        self.now = 0.0
        self.set_after = set_after

    def now_ms(self) -> int:
        return round(self.now * 1000)

    def monotonic(self) -> float:
        return self.now

    def wait(self, timeout: float) -> bool:
        self.now += timeout
        return self.now >= self.set_after


def recording(name: str, length: int) -> Recording:
    features = np.arange(3 * length, dtype=np.float32).reshape(length, 3) / 10
    return Recording(name, "", [""] * len(features), features)


def sent_by(recordings: Sequence[Recording], **options: object) -> tuple[Sent, Time, int]:
    sent, time = Sent(), options.pop("time", Time())
    assert isinstance(time, Time)
    encoder = options.pop("encoder", SampleEncoder("json"))
    count = replay(recordings, sent, "samples", encoder, time, stop=time, **options)
    return sent, time, count


def test_recordings_go_in_turn_step_by_step_and_shorter_ones_end_earlier() -> None:
    sent, _, count = sent_by([recording("a", 3), recording("b", 1), recording("c", 2)])
    assert sent.keys == [b"a", b"b", b"c", b"a", b"c", b"a"]
    assert count == 6
    assert sent.flushed == 6


def test_the_partition_is_left_to_the_producers_partitioner() -> None:
    assert sent_by([recording("a", 1)])[0].partitions == {PARTITION_BY_KEY}


def test_loops_repeat_the_whole() -> None:
    assert sent_by([recording("a", 2), recording("b", 1)], loops=2)[0].keys == [b"a", b"b", b"a"] * 2


def test_nothing_to_send_ends_at_once_even_for_ever() -> None:
    assert sent_by([], loops=None)[2] == 0


def test_an_endless_replay_ends_when_it_is_told_to_and_delivers_what_it_queued() -> None:
    sent, _, count = sent_by(
        [recording("a", 2)], loops=None, pace=Pace(samples_per_second=10), time=Time(set_after=0.95)
    )
    assert count == len(sent.keys) == sent.flushed == 10


def test_a_speed_is_samples_a_second_of_each_stream() -> None:
    sent, _, _ = sent_by([recording("a", 3), recording("b", 3)], pace=Pace(samples_per_second=10))
    assert sent.times == [0, 0, 100, 100, 200, 200]


def test_a_rate_is_records_a_second_over_all_streams() -> None:
    sent, _, _ = sent_by([recording("a", 3), recording("b", 2)], pace=Pace(records_per_second=10))
    assert sent.times == [0, 100, 200, 300, 400]


def test_a_high_rate_is_kept_in_chunks() -> None:
    sent, time, _ = sent_by([recording(str(i), 10) for i in range(100)], pace=Pace(records_per_second=5000))
    assert time.now == pytest.approx(950 / 5000)
    assert len(set(sent.times)) == 20


def test_progress_is_told_of_every_record() -> None:
    told: list[int] = []
    sent_by([recording("a", 3), recording("b", 2)], advance=told.append)
    assert sum(told) == 5


def test_json_has_the_digits_of_a_float32() -> None:
    one = Recording("a", "", [""], np.array([[0.1, -2.5, 1e-7]], np.float32))
    assert sent_by([one])[0].values == [b'{"features":[0.1,-2.5,1e-7]}']


def test_json_fields_are_named_where_names_are_given() -> None:
    sent, _, _ = sent_by([recording("a", 1)], encoder=SampleEncoder("json", ["x", "y", "z"]))
    assert orjson.loads(sent.values[0]) == {"x": 0.0, "y": 0.1, "z": 0.2}


def test_controls_are_json_fields_and_end_comes_with_the_last_sample_only() -> None:
    sent, _, _ = sent_by([recording("a", 2)], loops=2, encoder=SampleEncoder("json", (), Controls(True, True, True)))
    controls = [
        {name: value for name, value in orjson.loads(each).items() if name != "features"} for each in sent.values
    ]
    assert controls == [
        {"step": 1, "sequence_id": "a-0"},
        {"step": 2, "sequence_id": "a-0", "end": True},
        {"step": 1, "sequence_id": "a-1"},
        {"step": 2, "sequence_id": "a-1", "end": True},
    ]


@pytest.mark.parametrize("record_format", ["json", "binary"])
def test_the_worker_reads_back_what_was_sent(record_format: str) -> None:
    given = recording("a", 2)
    sent, _, _ = sent_by([given], encoder=SampleEncoder(record_format, (), Controls(True, True, True)))
    batch = RecordBatch(
        np.zeros(2, np.int32), np.arange(2), np.zeros(2, np.int64), list(sent.keys), list(sent.values), sent.headers
    )
    decoder = input_decoder(record_format, features=3, names=(), value_bytes_max=1000, future_ms_max=1000)
    decoded = decoder.decode(batch, 0)
    assert not decoded.rejections
    assert decoded.kinds.tolist() == [Kind.SAMPLE] * 2
    np.testing.assert_array_equal(decoded.features, given.features)
    assert decoded.steps is not None
    assert decoded.steps.tolist() == [1, 2]
    assert decoded.ends is not None
    assert decoded.ends.tolist() == [False, True]
    assert decoded.sequence_ids == [b"a-0", b"a-0"]
