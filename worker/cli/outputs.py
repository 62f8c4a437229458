"""Output records for a person: decoded, and drawn as a line or a table row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import orjson
from rich.table import Table
from rich.text import Text

from worker.core.types import EndedBy
from worker.errors import ConfigError

BAR_CELLS = 20
_FIXED_BYTES = 13
"""A binary output without its probabilities: int32 step, uint8 flags, int64 source offset."""


@dataclass(frozen=True, slots=True)
class Published:
    """What `watch` shows of one output record. A probability is None where the model had nothing to say."""

    stream: str
    step: int
    probabilities: list[float | None]
    final: bool
    exact: bool
    tainted: bool
    ended_by: str


def decode_output(key: bytes | None, value: bytes, output_format: str) -> Published:
    """Raises ConfigError for a value that is not of this format."""
    stream = (key or b"").decode("utf-8", "backslashreplace")
    try:
        return _from_binary(stream, value) if output_format == "binary" else _from_json(stream, value)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"an output record of stream {stream} is not {output_format}", "set output.format and topics.output"
        ) from error


def _from_json(stream: str, value: bytes) -> Published:
    record = orjson.loads(value)
    probabilities = record["probabilities"] if "probabilities" in record else [record["probability"]]
    return Published(
        stream=stream,
        step=record["step"],
        probabilities=probabilities or [None],
        final=record["final"],
        exact=record["exact"],
        tainted=record["tainted"],
        ended_by=record["ended_by"] or "",
    )


def _from_binary(stream: str, value: bytes) -> Published:
    outputs, rest = divmod(len(value) - _FIXED_BYTES, 4)
    if outputs < 1 or rest:
        raise ValueError(f"{len(value)} bytes")
    probabilities = np.frombuffer(value, "<f4", outputs, 4)
    flags = value[4 + 4 * outputs]
    ended_by = EndedBy(flags >> 4)
    return Published(
        stream=stream,
        step=int.from_bytes(value[:4], "little", signed=True),
        probabilities=[None if np.isnan(each) else float(each) for each in probabilities],
        final=bool(flags & 1),
        exact=bool(flags & 2),
        tainted=bool(flags & 4),
        ended_by=ended_by.name.lower() if ended_by else "",
    )


def line(published: Published) -> str:
    """One record on one line, for what is no terminal."""
    numbers = " ".join("-" if each is None else f"{each:.4f}" for each in published.probabilities)
    return f"{published.stream}\t{published.step}\t{numbers}\t{_remark(published)}".rstrip()


def table(newest: Iterable[Published]) -> Table:
    """The newest record of each stream; the bar is the first probability, or the largest class's."""
    drawn = Table("stream", "step", "probability", "", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for published in newest:
        drawn.add_row(Text(published.stream), str(published.step), _bar(published), Text(_remark(published)))
    return drawn


def _bar(published: Published) -> Text:
    known = [each for each in published.probabilities if each is not None]
    if not known:
        return Text("·" * BAR_CELLS + "      -", style="dim")
    largest = max(known)
    of_class = f" class {published.probabilities.index(largest)}" if len(published.probabilities) > 1 else ""
    full = round(largest * BAR_CELLS)
    style = "bold green" if published.exact else "cyan"
    return Text("█" * full, style=style).append("░" * (BAR_CELLS - full), "dim").append(f" {largest:.4f}{of_class}", "")


def _remark(published: Published) -> str:
    words = [f"final: {published.ended_by}" if published.final else "", "tainted" if published.tainted else ""]
    return ", ".join(word for word in words if word)
