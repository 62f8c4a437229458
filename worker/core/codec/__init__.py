"""Bytes of a record to features and controls, predictions to bytes; one file per format, as in schemas/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from worker.core.codec.binary_format import BinaryDecoder, BinaryEncoder
from worker.core.codec.json_format import JsonDecoder, JsonEncoder
from worker.core.types import DecodedBatch, ModelLabel, PredictionBatch, RecordBatch


class InputDecoder(Protocol):
    """Reads samples and controls; never raises on what a producer sent."""

    def decode(self, batch: RecordBatch, now_ms: int) -> DecodedBatch:
        """Row i of the answer is record i; what cannot be used is a rejection. `now_ms`: wall clock."""


class OutputEncoder(Protocol):
    """Writes predictions."""

    def encode(self, predictions: PredictionBatch) -> list[bytes]:
        """The value of each output record, in order."""


def input_decoder(
    record_format: str, *, features: int, names: Sequence[str] = (), value_bytes_max: int, future_ms_max: int
) -> InputDecoder:
    """`record_format`: json | binary. `names`: JSON fields of the features in order; empty: the array
    `features`. `value_bytes_max`: a longer value is rejected unread. `future_ms_max`: how far a timestamp may be ahead.

    Raises ConfigError when `names` do not fit the model.
    """
    if record_format == "json":
        return JsonDecoder(features, names, value_bytes_max, future_ms_max)
    if record_format == "binary":
        return BinaryDecoder(features, value_bytes_max, future_ms_max)
    raise ValueError(f"no input format {record_format!r}")


def output_encoder(record_format: str, *, topic: str, models: Sequence[ModelLabel], outputs: int) -> OutputEncoder:
    """`topic`: the input's; `models`: as `PredictionBatch.models` counts them, the served one first."""
    if record_format == "json":
        return JsonEncoder(topic, models, outputs)
    if record_format == "binary":
        return BinaryEncoder(outputs)
    raise ValueError(f"no output format {record_format!r}")
