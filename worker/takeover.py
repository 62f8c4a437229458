"""What happens to a partition's stored rows before its first record: rows of another model, and the idle index."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from worker.core.codec import OutputEncoder
from worker.core.deciding import UNDECIDED
from worker.core.idle import IdleIndex
from worker.core.slots import StreamTable
from worker.core.state_row import Flag, check_row, decode_row, row_event_time, row_fingerprint
from worker.core.types import EndedBy, ModelLabel, PredictionBatch
from worker.delivery import Delivery
from worker.errors import StateFromAnotherModel
from worker.partitions import OwnedPartition
from worker.ports import Store

log = logging.getLogger(__name__)

EncoderOf = Callable[[Sequence[ModelLabel]], OutputEncoder]
"""Of the configured format, for records of these models."""


class Takeover:
    """Called once for each partition that is about to run.

    With `refuse` a first row of another model stops the worker; with `reset` the sequences of other models are ended;
    with `finish` they go on where their model is one of the table's, and stop the worker where it is not. `decides`:
    sequences are decided early, so that every record says whether it decides.
    """

    def __init__(
        self,
        *,
        table: StreamTable,
        delivery: Delivery,
        encoder_of: EncoderOf,
        on_model_change: str,
        idle_timeout_ms: int,
        decides: bool = False,
    ) -> None:
        self._table = table
        self._delivery = delivery
        self._encoder_of = encoder_of
        self._on_model_change = on_model_change
        self._idle_timeout_ms = idle_timeout_ms
        self._decides = decides

    def prepare(self, partition: OwnedPartition) -> None:
        """Raises StateFromAnotherModel for rows that this worker must not touch.

        Raises StoreCorrupted and RowCorrupted before anything is changed: another store may then take its place.
        """
        store = partition.store
        assert store is not None, "a running partition has a store"
        served = self._table.row_format.models
        foreign: list[tuple[bytes, bytes]] = []
        older: list[int] = []
        first = next(iter(store.scan()), None)
        if first is not None:
            check_row(first[1])
            if self._on_model_change == "reset":
                foreign = [(key, row) for key, row in store.scan() if row_fingerprint(row) not in served]
            elif self._on_model_change == "finish" and len(served) > 1:
                counts = Counter(row_fingerprint(row) for _, row in store.scan())
                self._refuse_others(partition.index, counts)
                older = [counts[model] for model in served[1:]]
            else:
                # One is enough, unless a former worker finished sequences; then the others are refused as they come.
                self._refuse_others(partition.index, [row_fingerprint(first[1])])
        idle = self._idle_index(store) if self._idle_timeout_ms else None
        self._table.add_partition(partition.index, store_is_empty=first is None, older_rows=older)
        partition.idle = idle
        if foreign:
            self._end_sequences(partition, foreign)

    def _refuse_others(self, index: int, models: Iterable[bytes]) -> None:
        served = self._table.row_format.models
        for theirs in models:
            if theirs not in served:
                ours = ", ".join(model[:4].hex() for model in served)
                raise StateFromAnotherModel(
                    f"partition {index} holds state of model {theirs[:4].hex()}, this worker serves model {ours}",
                    "name its file in model.previous with --on-model-change finish, with its length where that was "
                    "another, or end its open sequences with --on-model-change reset",
                )

    def _idle_index(self, store: Store) -> IdleIndex:
        idle = IdleIndex(self._idle_timeout_ms)
        served = self._table.row_format.models
        for key, row in store.scan():
            if row_fingerprint(row) in served:
                idle.watch(key, row_event_time(row))
        return idle

    def _end_sequences(self, partition: OwnedPartition, rows: list[tuple[bytes, bytes]]) -> None:
        models = list(dict.fromkeys(row_fingerprint(row) for _, row in rows))
        # Their files are not loaded: length and calibration of these sequences are unknown.
        labels = [ModelLabel(model[:4].hex()) for model in models]
        theirs = ", ".join(label.model for label in labels)
        log.warning("partition %d: ending %d sequences of model %s", partition.index, len(rows), theirs)
        closings = closing_records(partition.index, rows, models, self._table.row_format.outputs, decides=self._decides)
        self._table.forget(partition.index, [key for key, _ in rows])
        self._delivery.send(closings, self._encoder_of(labels).encode(closings))
        self._delivery.commit([partition], [])


def closing_records(
    partition: int,
    rows: list[tuple[bytes, bytes]],
    models: Sequence[bytes],
    outputs: int,
    *,
    decides: bool = False,
) -> PredictionBatch:
    """The last word on sequences whose model is gone: the numbers of their last sample once more, never exact.

    `models`: the fingerprints of all rows, as the batch counts them. A model with another number of outputs leaves no
    numbers. `source` is the sequence's own last record. None of them decides its sequence, and where sequences are
    decided early (`decides`) they say so.
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
        decisions=np.full(count, UNDECIDED, np.int16) if decides else None,
        models=np.array([models.index(row.fingerprint) for row in decoded], np.uint8),
    )
