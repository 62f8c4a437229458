"""What happens to a partition's stored rows before its first record: rows of another model, and the idle index."""

from __future__ import annotations

import logging

import numpy as np

from worker.core.codec import OutputEncoder
from worker.core.idle import IdleIndex
from worker.core.slots import StreamTable
from worker.core.state_row import Flag, check_row, decode_row, row_event_time, row_fingerprint
from worker.core.types import EndedBy, PredictionBatch
from worker.delivery import Delivery
from worker.errors import StateFromAnotherModel
from worker.partitions import OwnedPartition

log = logging.getLogger(__name__)


class Takeover:
    """Called once for each partition that is about to run."""

    def __init__(
        self,
        *,
        table: StreamTable,
        delivery: Delivery,
        encoder: OutputEncoder,
        on_model_change: str,
        idle_timeout_ms: int,
    ) -> None:
        self._table = table
        self._delivery = delivery
        self._encoder = encoder
        self._on_model_change = on_model_change
        self._idle_timeout_ms = idle_timeout_ms

    def prepare(self, partition: OwnedPartition) -> None:
        """Raises StateFromAnotherModel when `on_change` is `refuse` and rows of another model are stored."""
        store = partition.store
        assert store is not None, "a running partition has a store"
        self._table.add_partition(partition.index, store_is_empty=store.is_empty())
        first = next(iter(store.scan()), None)
        if first is not None:
            check_row(first[1])
            if row_fingerprint(first[1]) != self._table.row_format.fingerprint:
                self._change_model(partition, first[1])
        if self._idle_timeout_ms:
            partition.idle = IdleIndex(self._idle_timeout_ms)
            for key, row in store.scan():
                partition.idle.watch(key, row_event_time(row))

    def _change_model(self, partition: OwnedPartition, example: bytes) -> None:
        ours, theirs = self._table.row_format.fingerprint[:4].hex(), row_fingerprint(example)[:4].hex()
        if self._on_model_change == "refuse":
            raise StateFromAnotherModel(
                f"partition {partition.index} holds state of model {theirs}, this worker serves model {ours}",
                "serve the old model, or end its open sequences with --on-model-change reset",
            )
        assert partition.store is not None
        foreign = [
            (key, row)
            for key, row in partition.store.scan()
            if row_fingerprint(row) != self._table.row_format.fingerprint
        ]
        log.warning("partition %d: ending %d sequences of model %s", partition.index, len(foreign), theirs)
        closings = closing_records(partition.index, foreign, self._table.row_format.outputs)
        self._table.forget(partition.index, [key for key, _ in foreign])
        self._delivery.send(closings, self._encoder.encode(closings))
        self._delivery.commit([partition], [])


def closing_records(partition: int, rows: list[tuple[bytes, bytes]], outputs: int) -> PredictionBatch:
    """The last word on sequences whose model is gone: the numbers of their last sample once more, never exact.

    A model with another number of outputs leaves no numbers. `source` is the sequence's own last record.
    """
    decoded = [decode_row(row) for _, row in rows]
    count = len(rows)

    def column(name: str) -> list[int]:
        return [row.header[name] for row in decoded]  # type: ignore[misc]  # these header fields are integers

    def numbers(name: str) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        none = [float("nan")] * outputs
        values = [row.header[name] for row in decoded]
        return np.array([each if len(each) == outputs else none for each in values], np.float32).reshape(count, outputs)  # type: ignore[arg-type]

    return PredictionBatch(
        partitions=np.full(count, partition, np.int32),
        keys=[key for key, _ in rows],
        event_times=np.array(column("event_time"), np.int64),
        source_offsets=np.array(column("last_offset"), np.int64),
        first_offsets=np.array(column("first_offset"), np.int64),
        steps=np.array(column("step"), np.int32),
        logits=numbers("logits"),
        probabilities=numbers("probabilities"),
        final=np.ones(count, np.bool_),
        exact=np.zeros(count, np.bool_),
        tainted=np.array([bool(flags & Flag.TAINTED) for flags in column("flags")], np.bool_),
        closing=np.ones(count, np.bool_),
        ended_by=np.full(count, EndedBy.MODEL_CHANGE, np.uint8),
        sequence_ids=[row.sequence_id for row in decoded],
    )
