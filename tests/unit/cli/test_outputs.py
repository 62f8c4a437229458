"""Output records as `watch` shows them."""

from __future__ import annotations

import io

import numpy as np
import orjson
import pytest
from rich.console import Console

from worker.cli.outputs import Published, decode_output, line, table
from worker.cli.watch import Newest
from worker.core.codec.binary_format import BinaryEncoder
from worker.core.types import EndedBy, PredictionBatch
from worker.errors import ConfigError


def published(stream: str = "a", step: int = 3, probabilities: tuple[float | None, ...] = (0.25,)) -> Published:
    return Published(stream, step, list(probabilities), final=True, exact=True, tainted=False, ended_by="length")


def record(**fields: object) -> bytes:
    return orjson.dumps(
        {"step": 3, "probability": 0.25, "final": True, "exact": True, "tainted": False, "ended_by": "length", **fields}
    )


def test_json_is_read() -> None:
    assert decode_output(b"a", record(), "json") == published()


def test_many_classes_are_read() -> None:
    value = orjson.loads(record())
    del value["probability"]
    value["probabilities"] = [0.25, None]
    assert decode_output(b"a", orjson.dumps(value), "json").probabilities == [0.25, None]


@pytest.mark.parametrize("probabilities", [(0.25,), (0.25, np.nan), (0.5, 0.25, 0.25)])
def test_what_the_binary_encoder_writes_is_read(probabilities: tuple[float, ...]) -> None:
    batch = PredictionBatch(
        partitions=np.zeros(1, np.int32),
        keys=[b"a"],
        event_times=np.zeros(1, np.int64),
        source_offsets=np.array([9]),
        first_offsets=np.array([7]),
        steps=np.array([3], np.int32),
        logits=np.zeros((1, len(probabilities)), np.float32),
        probabilities=np.array([probabilities], np.float32),
        final=np.array([True]),
        exact=np.array([True]),
        tainted=np.array([False]),
        closing=np.array([True]),
        ended_by=np.array([EndedBy.LENGTH], np.uint8),
    )
    (value,) = BinaryEncoder(len(probabilities)).encode(batch)
    expected = tuple(None if np.isnan(each) else each for each in probabilities)
    assert decode_output(b"a", value, "binary") == published(probabilities=expected)


@pytest.mark.parametrize(
    ("value", "output_format"), [(b"{", "json"), (b"{}", "json"), (b"[]", "json"), (b"x", "binary")]
)
def test_a_record_of_another_format_names_the_settings(value: bytes, output_format: str) -> None:
    with pytest.raises(ConfigError, match=f"stream a is not {output_format}: set output.format"):
        decode_output(b"a", value, output_format)


def test_a_line_has_stream_step_numbers_and_why_it_ended() -> None:
    assert line(published(probabilities=(0.25, None))) == "a\t3\t0.2500 -\tfinal: length"


def test_a_table_shows_a_bar_and_does_not_read_keys_as_markup() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table([published("[red]a"), published("b", probabilities=(None,))]))
    text = console.export_text()
    assert "[red]a" in text
    assert "█████░░░░░░░░░░░░░░░ 0.2500" in text


def test_the_newest_record_of_each_stream_is_kept_and_the_longest_silent_stream_forgotten() -> None:
    newest = Newest(streams_max=2)
    for stream, step in [("b", 1), ("a", 1), ("b", 2), ("c", 1)]:
        newest.add(published(stream, step))
    assert [(each.stream, each.step) for each in newest.first(10)] == [("b", 2), ("c", 1)]


def test_streams_that_spoke_last_come_first_and_in_order_of_their_names() -> None:
    newest = Newest()
    for stream in "cab":
        newest.add(published(stream))
    assert [each.stream for each in newest.first(2)] == ["a", "b"]
