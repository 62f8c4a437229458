"""The sequence rules applied to a batch: what is stepped, what is published, what is only counted.

Samples of streams without controls (no `step`, `end`, `sequence_id`, no idle timeout, no older model) are routed as
columns: the k-th sample of a stream in the batch is its next step but k, modulo the sequence length. All others go
through `sequence.advance` one by one. Both give the same answer where both apply; a property test holds them together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from worker.core.idle import IdleIndex
from worker.core.routed import Routed, merged
from worker.core.routing_controlled import ControlledRouter
from worker.core.sequence import SequenceRules
from worker.core.slots import StreamTable
from worker.core.state_row import STICKY
from worker.core.types import BoolArray, DecodedBatch, EndedBy, Int64Array, Kind, RecordBatch


def route(
    batch: RecordBatch,
    decoded: DecodedBatch,
    slots: Int64Array,
    table: StreamTable,
    rules: SequenceRules,
    watermarks: dict[int, int],
    idle: Mapping[int, IdleIndex] | None = None,
) -> Routed:
    """Apply a batch to the table's headers (not to the states) and say what to step and to publish.

    slots (N,): of each record, -1 where a record without a usable key has none. All of them, and the slots of the
    streams that the idle indexes hold due, must have been touched. `watermarks` (partition → highest event time) is
    brought up to date.
    """
    controlled = _controlled_records(decoded, slots, table, rules, idle is not None)
    plain = np.flatnonzero(~controlled & (slots >= 0))
    one_by_one = np.flatnonzero(controlled & (slots >= 0))
    columns = _route_columns(plain, batch, slots, table, rules)
    if len(one_by_one):
        rest = ControlledRouter(batch, decoded, slots, table, rules, watermarks, idle).route(one_by_one)
        columns = merged(columns, rest) if len(plain) else rest
    if idle is None:
        _advance_watermarks(batch, decoded, watermarks)
    return columns


def _controlled_records(
    decoded: DecodedBatch, slots: Int64Array, table: StreamTable, rules: SequenceRules, idle: bool
) -> BoolArray:
    """Records of streams that need the rules one by one: some record of theirs in this batch carries a control."""
    if idle:
        return np.ones(len(slots), np.bool_)
    special: BoolArray = decoded.kinds != Kind.SAMPLE
    if decoded.ends is not None:
        special |= decoded.ends
    if decoded.steps is not None:
        special |= decoded.steps > 0
    if decoded.sequence_ids is not None:
        special |= np.fromiter((given is not None for given in decoded.sequence_ids), np.bool_, len(slots))
    if rules.length:
        special |= table.rows["step"][np.maximum(slots, 0)] >= rules.length
    if len(table.row_format.models) > 1:
        rows = table.rows[np.maximum(slots, 0)]
        special |= (table.row_format.model_of(rows) > 0) & (slots >= 0)
    if not special.any():
        return special
    streams = np.zeros(table.slots_max + 1, np.bool_)
    streams[slots[special]] = True
    streams[-1] = False
    return streams[slots] | special


def _route_columns(
    records: Int64Array, batch: RecordBatch, all_slots: Int64Array, table: StreamTable, rules: SequenceRules
) -> Routed:
    slots = all_slots[records]
    order = np.argsort(slots, kind="stable")
    by_stream, offsets, event_times = slots[order], batch.offsets[records][order], batch.event_times[records][order]
    place = np.arange(len(order))
    begins = np.ones(len(order), np.bool_)
    begins[1:] = by_stream[1:] != by_stream[:-1]
    rank = place - np.maximum.accumulate(np.where(begins, place, 0))

    header = table.rows
    before = header["step"][by_stream]
    count = before + rank
    length = rules.length
    steps = (count % length if length else count).astype(np.int32) + 1
    final = steps == length if length else np.zeros(len(order), np.bool_)
    carried = (before > 0) & (count < length if length else True)
    first_offsets = np.where(
        carried, header["first_offset"][by_stream], offsets[np.maximum(place - steps + 1, 0)] if len(order) else 0
    )
    flags = np.where(carried, header["flags"][by_stream] & STICKY, 0).astype(np.uint8)
    ids: list[bytes] | None = None
    known = table.sequence_ids
    if known:
        pairs = zip(by_stream.tolist(), carried.tolist(), strict=True)
        ids = [known.get(slot, b"") if mine else b"" for slot, mine in pairs]

    last = np.flatnonzero(np.append(begins[1:], True)) if len(order) else place
    ended = by_stream[last]
    header["step"][ended] = np.where(final[last], 0, steps[last])
    header["producer_step"][ended] = np.where(carried[last] & ~final[last], header["producer_step"][ended], 0)
    header["first_offset"][ended] = first_offsets[last]
    header["last_offset"][ended] = offsets[last]
    header["event_time"][ended] = event_times[last]
    keeps = carried[last] & ~final[last]
    header["flags"][ended] = np.where(keeps, header["flags"][ended], 0)
    if known:
        for slot in ended[~keeps].tolist():
            known.pop(slot, None)

    back = np.empty(len(order), np.int64)
    back[order] = place
    return Routed(
        stepped=records,
        slots=slots,
        steps=steps[back],
        row_records=records,
        row_samples=place,
        row_slots=slots,
        row_steps=steps[back],
        row_first_offsets=first_offsets[back],
        row_flags=flags[back],
        row_closing=np.zeros(len(order), np.bool_),
        row_ended_by=np.where(final, np.uint8(EndedBy.LENGTH), np.uint8(0))[back],
        row_sequence_ids=None if ids is None else [ids[i] for i in back.tolist()],
        rejected_gaps=[],
        counts=Counter(started=int((steps == 1).sum())),
    )


def _advance_watermarks(batch: RecordBatch, decoded: DecodedBatch, watermarks: dict[int, int]) -> None:
    usable = decoded.kinds != Kind.REJECTED
    for partition in np.unique(batch.partitions).tolist():
        times = batch.event_times[usable & (batch.partitions == partition)]
        if len(times):
            watermarks[partition] = max(watermarks.get(partition, -1), int(times.max()))
