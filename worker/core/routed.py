"""What routing a batch gave: the samples to step and the rows to publish."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from worker.core.types import BoolArray, Int32Array, Int64Array, UInt8Array

CARRIED = -1
"""In `Routed.row_samples`: the numbers are those of the stream's last sample before this batch."""


@dataclass(slots=True)
class Routed:
    """n samples to step and M rows to publish, both in record order."""

    stepped: Int64Array
    """(n,) record numbers."""
    slots: Int64Array
    """(n,)"""
    steps: Int32Array
    """(n,) 1-based model steps."""
    row_records: Int64Array
    """(M,) the record that caused the row."""
    row_samples: Int64Array
    """(M,) position in `stepped` of the sample whose numbers the row shows, or CARRIED."""
    row_slots: Int64Array
    row_steps: Int32Array
    row_first_offsets: Int64Array
    row_flags: UInt8Array
    row_closing: BoolArray
    row_ended_by: UInt8Array
    row_sequence_ids: list[bytes] | None
    rejected_gaps: list[int]
    """Record numbers that `on_gap = reject` sends to the dead letters."""
    models: UInt8Array | None = None
    """(n,) the model that steps each sample, None where all are the served one's."""
    row_models: UInt8Array | None = None
    """(M,) the model whose numbers the row shows."""
    counts: Counter[str] = field(default_factory=Counter)
    """duplicates, gaps, boundaries_without_sequence, started."""


def merged(columns: Routed, rest: Routed) -> Routed:
    """Two parts of one batch, of different streams, as one in record order."""
    stepped = np.concatenate([columns.stepped, rest.stepped])
    sample_order = np.argsort(stepped, kind="stable")
    new_place = np.empty(len(stepped), np.int64)
    new_place[sample_order] = np.arange(len(stepped))
    rest_samples = np.where(rest.row_samples == CARRIED, CARRIED, rest.row_samples + len(columns.stepped))
    samples = np.concatenate([columns.row_samples, rest_samples])
    samples = np.where(samples == CARRIED, CARRIED, new_place[np.maximum(samples, 0)])
    order = np.argsort(np.concatenate([columns.row_records, rest.row_records]), kind="stable")
    ids: list[bytes] | None = None
    if columns.row_sequence_ids is not None or rest.row_sequence_ids is not None:
        both = (columns.row_sequence_ids or [b""] * len(columns.row_records)) + (
            rest.row_sequence_ids or [b""] * len(rest.row_records)
        )
        ids = [both[i] for i in order.tolist()]
    return Routed(
        stepped=stepped[sample_order],
        slots=np.concatenate([columns.slots, rest.slots])[sample_order],
        steps=np.concatenate([columns.steps, rest.steps])[sample_order],
        row_records=np.concatenate([columns.row_records, rest.row_records])[order],
        row_samples=samples[order],
        row_slots=np.concatenate([columns.row_slots, rest.row_slots])[order],
        row_steps=np.concatenate([columns.row_steps, rest.row_steps])[order],
        row_first_offsets=np.concatenate([columns.row_first_offsets, rest.row_first_offsets])[order],
        row_flags=np.concatenate([columns.row_flags, rest.row_flags])[order],
        row_closing=np.concatenate([columns.row_closing, rest.row_closing])[order],
        row_ended_by=np.concatenate([columns.row_ended_by, rest.row_ended_by])[order],
        row_sequence_ids=ids,
        rejected_gaps=rest.rejected_gaps,
        models=_together(rest.models, len(columns.stepped), sample_order),
        row_models=_together(rest.row_models, len(columns.row_records), order),
        counts=columns.counts + rest.counts,
    )


def _together(rest: UInt8Array | None, before: int, order: Int64Array) -> UInt8Array | None:
    """Columns are always of the served model."""
    return None if rest is None else np.concatenate([np.zeros(before, np.uint8), rest])[order]
