"""Routed samples and their numbers become output rows.

Here a closing record gets the numbers of its sequence's last sample, a sequence whose state became non-finite loses
its numbers, and `output.emit` leaves rows out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from worker.core.deciding import UNDECIDED, decisions
from worker.core.routed import CARRIED, Routed
from worker.core.slots import StreamTable
from worker.core.state_row import Flag
from worker.core.types import (
    BoolArray,
    Float32Array,
    Headers,
    Int32Array,
    Int64Array,
    PredictionBatch,
    RecordBatch,
    UInt8Array,
)


class Readout(Protocol):
    """Turns logits into the numbers to publish."""

    calibration_id: str | None
    """None where no number is a forecast."""
    computed_from: int
    """The first step whose logits say anything; before it they are null."""

    def publish(self, answers: Float32Array, steps: Int32Array) -> tuple[Float32Array, BoolArray]:
        """An engine's answers (N, columns) at steps (N,) → probabilities (N, K), NaN where there is none, and exact
        (N,)."""

    def exact(self, steps: Int32Array) -> BoolArray:
        """The same exact (N,) alone."""


def numbers(
    readouts: Sequence[Readout], models: UInt8Array | None, answers: Float32Array, steps: Int32Array, outputs: int
) -> tuple[Float32Array, BoolArray]:
    """`Readout.publish` of each row by its own model; `models` None: all are of the first."""
    if models is None:
        return readouts[0].publish(answers, steps)
    probabilities, exact = np.empty((len(steps), outputs), np.float32), np.empty(len(steps), np.bool_)
    for number, readout in enumerate(readouts):
        mine = np.flatnonzero(models == number)
        if len(mine):
            probabilities[mine], exact[mine] = readout.publish(answers[mine], steps[mine])
    return probabilities, exact


def _exact(readouts: Sequence[Readout], models: UInt8Array | None, steps: Int32Array) -> BoolArray:
    if models is None:
        return readouts[0].exact(steps)
    exact = np.empty(len(steps), np.bool_)
    for number, readout in enumerate(readouts):
        exact[models == number] = readout.exact(steps[models == number])
    return exact


def _said(
    readouts: Sequence[Readout], models: UInt8Array | None, logits: Float32Array, steps: Int32Array
) -> Float32Array:
    """The logits, NaN where nothing has been computed yet."""
    begins = np.array([readout.computed_from for readout in readouts], np.int32)
    if bool((begins == 1).all()):
        return logits
    early = steps < (begins[0] if models is None else begins[models])
    return np.where(early[:, None], np.float32(np.nan), logits)


class Emit(Enum):
    """Which rows are published."""

    ALL = "all"
    FINAL = "final"
    CHANGES = "changes"


@dataclass(frozen=True, slots=True)
class Emission:
    """`changes` publishes first and final rows, and those whose probability moved by `threshold` since the last
    published one; a move in the other direction than the last needs `hysteresis` more. `copy_headers` names headers of
    the input record that go with its output."""

    emit: Emit = Emit.ALL
    threshold: float = 0.05
    hysteresis: float = 0.02
    copy_headers: frozenset[str] = frozenset()
    decide_at: tuple[float, ...] = ()
    """The probability from which a sequence is decided, of each model's; empty for no early decisions."""


@dataclass(slots=True)
class Published:
    """The rows to produce and how many samples had a non-finite state."""

    predictions: PredictionBatch
    not_finite: int
    forecasts: tuple[Float32Array, Float32Array] | None = None
    """Probabilities (n,) before and after each sample that goes on with a sequence, of every output: what a drift
    shows in. None without a calibration."""


def publish(
    batch: RecordBatch,
    routed: Routed,
    answers: Float32Array,
    readouts: Sequence[Readout],
    table: StreamTable,
    emission: Emission,
) -> Published:
    """Output rows of a routed batch; `readouts` of the served model and of those whose sequences are finished.

    answers (n, columns) of the engines to `routed.stepped`, logits first; the table's last published numbers are
    brought up to date.
    """
    row_flags, outputs = routed.row_flags, table.row_format.outputs
    bad: BoolArray = np.logical_not(np.isfinite(answers[:, :outputs]).all(axis=1))
    if bad.any() or bool((row_flags & Flag.NOT_FINITE).any()):
        row_flags = _without_numbers(routed, answers, bad, table)
    probabilities, exact = numbers(readouts, routed.models, answers, routed.steps, outputs)
    logits = _said(readouts, routed.models, answers[:, :outputs], routed.steps)
    row_logits, row_probabilities, row_exact = logits, probabilities, exact
    if len(routed.row_samples) != len(routed.stepped) or bool((routed.row_samples == CARRIED).any()):
        row_logits, row_probabilities, row_exact = _row_numbers(routed, logits, probabilities, exact, readouts, table)
    forecasts = _increments(routed, probabilities, table) if any(r.calibration_id for r in readouts) else None
    table.rows["logits"][routed.slots] = logits
    table.rows["probabilities"][routed.slots] = probabilities

    tainted = (row_flags & Flag.TAINTED) != 0
    records = routed.row_records.tolist()
    keys = batch.keys
    if bool(routed.row_closing.any()):
        row_keys = [table.key_of(slot) for slot in routed.row_slots.tolist()]
    else:
        row_keys = [keys[i] for i in records]  # a record with a slot has a key
    predictions = PredictionBatch(
        partitions=batch.partitions[routed.row_records],
        keys=row_keys,
        event_times=batch.event_times[routed.row_records],
        source_offsets=batch.offsets[routed.row_records],
        first_offsets=routed.row_first_offsets,
        steps=routed.row_steps,
        logits=row_logits,
        probabilities=row_probabilities,
        final=routed.row_ended_by != 0,
        exact=row_exact & ~tainted,
        tainted=tainted,
        closing=routed.row_closing,
        ended_by=routed.row_ended_by,
        sequence_ids=routed.row_sequence_ids,
        headers=_copied_headers(batch, records, emission.copy_headers),
        models=routed.row_models,
    )
    if emission.decide_at:
        before = (row_flags & Flag.DECIDED) != 0
        thresholds = np.array(emission.decide_at, np.float32)[0 if routed.row_models is None else routed.row_models]
        predictions.decisions = decisions(predictions, routed.row_slots, before, table, thresholds)
    if emission.emit is not Emit.ALL:
        predictions = _selected(predictions, _emitted_rows(predictions, routed.row_slots, table, emission))
    return Published(predictions, int(bad.sum()), forecasts)


def _increments(routed: Routed, probabilities: Float32Array, table: StreamTable) -> tuple[Float32Array, Float32Array]:
    """The numbers (n,) before and after each sample but a sequence's first; the table still has those before the batch.

    probabilities (N, K) of `routed.stepped`: n is K times the samples that go on with a sequence.
    """
    order = np.argsort(routed.slots, kind="stable")
    slots, after = routed.slots[order], probabilities[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = slots[1:] != slots[:-1]
    before = np.empty_like(after)
    before[1:] = after[:-1]
    before[begins] = table.rows["probabilities"][slots[begins]]
    goes_on = routed.steps[order] > 1
    return before[goes_on].ravel(), after[goes_on].ravel()


def _copied_headers(batch: RecordBatch, records: list[int], names: frozenset[str]) -> list[Headers | None] | None:
    given = batch.headers
    if not names or given is None:
        return None
    return [[header for header in given[i] or () if header[0] in names] for i in records]


def _row_numbers(
    routed: Routed,
    logits: Float32Array,
    probabilities: Float32Array,
    exact: BoolArray,
    readouts: Sequence[Readout],
    table: StreamTable,
) -> tuple[Float32Array, Float32Array, BoolArray]:
    """The numbers of rows that are not one to one with the samples: closing records repeat the last sample's."""
    samples = routed.row_samples
    carried = np.flatnonzero(samples == CARRIED)
    outputs = table.row_format.outputs
    row_logits = np.empty((len(samples), outputs), np.float32)
    row_probabilities = np.empty((len(samples), outputs), np.float32)
    row_exact = np.empty(len(samples), np.bool_)
    mine = np.flatnonzero(samples != CARRIED)
    row_logits[mine] = logits[samples[mine]]
    row_probabilities[mine] = probabilities[samples[mine]]
    row_exact[mine] = exact[samples[mine]]
    if len(carried):
        slots = routed.row_slots[carried]
        row_logits[carried] = table.rows["logits"][slots]
        row_probabilities[carried] = table.rows["probabilities"][slots]
        models = None if routed.row_models is None else routed.row_models[carried]
        row_exact[carried] = _exact(readouts, models, routed.row_steps[carried])
    return row_logits, row_probabilities, row_exact


def _without_numbers(routed: Routed, answers: Float32Array, bad: BoolArray, table: StreamTable) -> UInt8Array:
    """From its first non-finite sample on, a sequence is tainted and has null numbers until it ends.

    Changes `answers` in place and the flags of streams whose sequence stays open; returns the rows' flags.
    """
    lost = int(Flag.TAINTED | Flag.NOT_FINITE)
    flags = routed.row_flags.copy()
    broken: set[tuple[int, int]] = set()
    rows = zip(
        routed.row_slots.tolist(),
        routed.row_first_offsets.tolist(),
        routed.row_samples.tolist(),
        routed.row_flags.tolist(),
        strict=True,
    )
    for row, (slot, first_offset, sample, row_flags) in enumerate(rows):
        sequence = (slot, first_offset)
        if row_flags & Flag.NOT_FINITE or (sample != CARRIED and bad[sample]):
            broken.add(sequence)
        if sequence in broken:
            flags[row] |= lost
            if sample != CARRIED:
                answers[sample] = np.nan
    for slot, first_offset in broken:
        header = table.rows[slot]
        if header["step"] > 0 and header["first_offset"] == first_offset:
            header["flags"] |= lost
    return flags


def _emitted_rows(
    predictions: PredictionBatch, slots: Int64Array, table: StreamTable, emission: Emission
) -> Int64Array:
    decides = np.zeros(len(predictions), np.bool_)
    if predictions.decisions is not None:
        decides = predictions.decisions != UNDECIDED
    if emission.emit is Emit.FINAL:
        return np.flatnonzero(predictions.final | decides)
    chosen: list[int] = []
    for row, slot in enumerate(slots.tolist()):
        header = table.rows[slot]
        now = predictions.probabilities[row]
        first = bool(predictions.steps[row] == 1) and not predictions.closing[row]
        direction = 0 if first else int(header["flags"]) & int(Flag.RISING | Flag.FALLING)
        moved, heading = _moved(header["emitted"], now, direction, emission)
        if not (first or moved or predictions.final[row] or decides[row]):
            continue
        chosen.append(row)
        header["emitted"] = now
        if header["step"] > 0:
            kept = int(header["flags"]) & ~int(Flag.RISING | Flag.FALLING)
            header["flags"] = kept | (0 if first else heading)
    return np.array(chosen, np.int64)


def _moved(before: Float32Array, now: Float32Array, direction: int, emission: Emission) -> tuple[bool, int]:
    """Whether the numbers moved far enough since the last published ones, and in which direction."""
    had_numbers, has_numbers = bool(np.isfinite(before).all()), bool(np.isfinite(now).all())
    if not (had_numbers and has_numbers):
        return had_numbers != has_numbers, 0
    moves = (now - before).astype(np.float64)
    largest = float(moves[np.argmax(np.abs(moves))])
    heading = int(Flag.RISING if largest > 0 else Flag.FALLING)
    needed = emission.threshold + (emission.hysteresis if direction and heading != direction else 0.0)
    return abs(largest) >= needed, heading


def _selected(predictions: PredictionBatch, rows: Int64Array) -> PredictionBatch:
    wanted = rows.tolist()
    ids = predictions.sequence_ids
    return PredictionBatch(
        partitions=predictions.partitions[rows],
        keys=[predictions.keys[i] for i in wanted],
        event_times=predictions.event_times[rows],
        source_offsets=predictions.source_offsets[rows],
        first_offsets=predictions.first_offsets[rows],
        steps=predictions.steps[rows],
        logits=predictions.logits[rows],
        probabilities=predictions.probabilities[rows],
        final=predictions.final[rows],
        exact=predictions.exact[rows],
        tainted=predictions.tainted[rows],
        closing=predictions.closing[rows],
        ended_by=predictions.ended_by[rows],
        sequence_ids=None if ids is None else [ids[i] for i in wanted],
        headers=None if predictions.headers is None else [predictions.headers[i] for i in wanted],
        decisions=None if predictions.decisions is None else predictions.decisions[rows],
        models=None if predictions.models is None else predictions.models[rows],
    )
