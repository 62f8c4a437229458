"""A worker core without clients: table, rules and publishing over a toy model whose numbers show their history."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from tests.holding import HoldingStepper
from tests.oracle import Expected, Given
from worker.core.idle import IdleIndex
from worker.core.publishing import Emission, Published, publish
from worker.core.routed import Routed
from worker.core.routing import route
from worker.core.sequence import OnGap, SequenceRules
from worker.core.slots import StreamTable
from worker.core.state_row import RowFormat, row_fingerprint
from worker.core.stepping import step_routed
from worker.core.types import DecodedBatch, EndedBy, Kind, RecordBatch, Rejection

FINGERPRINT = "ab" * 32


def toy_logit(samples: list[float], factor: int = 3) -> float:
    """Depends on every sample and on their order; exact in float32 for small integers."""
    value = 0.0
    for sample in samples:
        value = (value * factor + sample) % 65521
    return value


class ToyStepper:
    """state[0] is `toy_logit` of the samples so far, state[-1] the step."""

    features, columns = 1, 1
    releases_lock = False

    def __init__(self, factor: int = 3, state_size: int = 2) -> None:
        self.factor, self.state_size = factor, state_size

    def step_batch(self, slots, features, states, steps):
        logits = np.empty((len(slots), 1), np.float32)
        for i, slot in enumerate(slots.tolist()):
            before = 0.0 if steps[i] == 1 else float(states[slot, 0])
            states[slot, 0] = (before * self.factor + float(features[i, 0])) % 65521
            states[slot, self.state_size - 1] = steps[i]
            logits[i, 0] = states[slot, 0]
        return logits


class ToyReadout:
    """The probability is logit / 65521; exact from step 3 on."""

    computed_from = 1
    calibration_id: str | None = None

    def publish(self, answers, steps):
        return (answers / np.float32(65521)).astype(np.float32), self.exact(steps)

    def exact(self, steps):
        return steps >= 3


@dataclass
class ToyModel:
    stepper: ToyStepper | HoldingStepper = field(default_factory=ToyStepper)
    readout: ToyReadout = field(default_factory=ToyReadout)


@dataclass
class Core:
    """The pure way of a batch, as worker/processing.py does it."""

    rules: SequenceRules
    slots_max: int = 64
    emission: Emission = field(default_factory=Emission)
    row_format: RowFormat = field(default_factory=lambda: RowFormat(FINGERPRINT, 1, 2))
    models: list[ToyModel] = field(default_factory=lambda: [ToyModel()])

    def __post_init__(self) -> None:
        holders = [model.stepper for model in self.models if isinstance(model.stepper, HoldingStepper)]
        self.table = StreamTable(self.row_format, self.slots_max, holders)
        self.watermarks: dict[int, int] = {}
        self.idle: dict[int, IdleIndex] | None = {} if self.rules.idle_timeout_ms else None
        self.disk: dict[tuple[int, bytes], bytes] = {}
        self.partitions: set[int] = set()

    def own(self, partition: int, *, store_is_empty: bool = True) -> None:
        self.partitions.add(partition)
        older = self.older_on_disk({partition}).values()
        self.table.add_partition(partition, store_is_empty=store_is_empty, older_rows=list(older))
        if self.idle is not None:
            self.idle[partition] = IdleIndex(self.rules.idle_timeout_ms)

    def older_on_disk(self, partitions: set[int]) -> dict[bytes, int]:
        """Rows of each model but the first."""
        found = Counter(row_fingerprint(row) for (partition, _), row in self.disk.items() if partition in partitions)
        return {model: found[model] for model in self.row_format.models[1:]}

    def read_rows(self, partition, keys):
        return [self.disk.get((partition, key)) for key in keys]

    def run(self, records: list[Given]) -> tuple[Routed, Published]:
        for partition in {record.partition for record in records} - self.partitions:
            self.own(partition)
        batch, decoded = columns(records)
        slots = self.table.resolve(batch.partitions, batch.keys, self.read_rows)
        self.table.touch(slots)
        if self.idle is not None:
            for partition, index in self.idle.items():
                times = [r.event_time for r in records if r.partition == partition and not r.bad]
                keys = index.due_keys(max(times)) if times else []
                if keys:
                    owner = np.full(len(keys), partition, np.int32)
                    self.table.touch(self.table.resolve(owner, keys, self.read_rows))
        routed = route(batch, decoded, slots, self.table, self.rules, self.watermarks, self.idle)
        logits = step_routed(self.models, routed, decoded.features[routed.stepped], self.table)
        readouts = [model.readout for model in self.models]
        return routed, publish(batch, routed, logits, readouts, self.table, self.emission)

    def commit(self) -> None:
        for partition, rows in self.table.changes().items():
            for key, row in rows:
                if row is None:
                    del self.disk[(partition, key)]
                else:
                    self.disk[(partition, key)] = row
        self.table.committed()


def columns(records: list[Given]) -> tuple[RecordBatch, DecodedBatch]:
    batch = RecordBatch(
        partitions=np.array([r.partition for r in records], np.int32),
        offsets=np.array([r.offset for r in records], np.int64),
        event_times=np.array([r.event_time for r in records], np.int64),
        keys=[r.key for r in records],
        values=[b"" for _ in records],
    )
    kinds = [Kind.REJECTED if r.bad else Kind.SAMPLE if r.features else Kind.END for r in records]
    ids = [None if r.sequence_id is None else r.sequence_id.encode() for r in records]
    decoded = DecodedBatch(
        features=np.array([r.features or (0.0,) for r in records], np.float32).reshape(len(records), -1),
        kinds=np.array(kinds, np.uint8),
        ends=np.array([r.end for r in records], np.bool_) if any(r.end for r in records) else None,
        steps=np.array([r.step or 0 for r in records], np.int64) if any(r.step for r in records) else None,
        sequence_ids=ids if any(i is not None for i in ids) else None,
        rejections={i: Rejection("test", "bad") for i, r in enumerate(records) if r.bad},
    )
    return batch, decoded


def as_expected(published: Published) -> list[Expected]:
    """Published rows in the oracle's form; the samples are left out."""
    p = published.predictions
    ids = p.sequence_ids or [b""] * len(p)
    return [
        Expected(
            partition=int(p.partitions[i]),
            source_offset=int(p.source_offsets[i]),
            key=p.keys[i],
            step=int(p.steps[i]),
            first_offset=int(p.first_offsets[i]),
            final=bool(p.final[i]),
            ended_by=EndedBy(int(p.ended_by[i])).name.lower() if p.ended_by[i] else None,
            closing=bool(p.closing[i]),
            tainted=bool(p.tainted[i]),
            sequence=ids[i].decode() or f"{p.partitions[i]}-{p.first_offsets[i]}",
            samples=(),
        )
        for i in range(len(p))
    ]


def rules(length: int = 0, on_gap: str = "taint", idle_timeout_ms: int = 0) -> SequenceRules:
    return SequenceRules(length, OnGap(on_gap), idle_timeout_ms)
