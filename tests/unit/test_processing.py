"""A batch in two halves: begun, while the engine steps it the loop does something else, and finished."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.sim.real_worker import DigestModel, DigestStepper, KindDecoder, LogitReadout
from worker.core.partition import PartitionEvent
from worker.core.publishing import Emission
from worker.core.sequence import SequenceRules
from worker.core.slots import StreamTable
from worker.core.state_row import RowFormat
from worker.core.types import RecordBatch
from worker.partitions import Ownership
from worker.ports import StorePosition
from worker.processing import Processor

SECONDS_MAX = 10.0


class NoTime:
    def now_ms(self) -> int:
        return 0

    def monotonic(self) -> float:
        return 0.0


class HeldStepper(DigestStepper):
    """Steps when it is let."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def step_batch(self, slots, features, states, steps):
        assert self.go.wait(SECONDS_MAX)
        return super().step_batch(slots, features, states, steps)


class BrokenStepper(DigestStepper):
    def step_batch(self, *_):
        raise FloatingPointError("broken")


def batch(first: int) -> RecordBatch:
    """Five samples of three streams."""
    count = 5
    return RecordBatch(
        partitions=np.zeros(count, np.int32),
        offsets=np.arange(first, first + count, dtype=np.int64),
        event_times=np.arange(first, first + count, dtype=np.int64),
        keys=[b"a", b"b", b"a", b"c", b"b"],
        values=[b"sample"] * count,
        headers=None,
    )


def processor(stepper: DigestStepper, background_samples_min: int) -> Processor:
    model = DigestModel()
    model.stepper, model.readout = stepper, LogitReadout()
    table, ownership = StreamTable(RowFormat("ab" * 32, 1, 1), 64), Ownership()
    table.add_partition(0, store_is_empty=True)
    owned = ownership.assign(0)
    owned.begin_at(StorePosition(0))
    for event in (PartitionEvent.STORE_OPENED, PartitionEvent.RESTORE_COMPLETED):
        owned.machine.apply(event)
    return Processor(
        decoder=KindDecoder(),
        models=[model],
        table=table,
        ownership=ownership,
        rules=SequenceRules(),
        emission=Emission(),
        clock=NoTime(),
        background_samples_min=background_samples_min,
    )


def test_a_batch_is_begun_before_it_is_stepped_and_finishes_with_the_same_numbers():
    held = HeldStepper()
    in_background, at_once = processor(held, 1), processor(DigestStepper(), 1000)
    for first in (0, 5):
        held.go.clear()
        begun = in_background.begin(batch(first), lambda _: None)
        assert begun is not None
        assert not begun.logits.done()
        held.go.set()
        mine = in_background.finish(begun, lambda _: None).predictions
        begun = at_once.begin(batch(first), lambda _: None)
        assert begun is not None
        assert begun.logits.done()
        other = at_once.finish(begun, lambda _: None).predictions
        assert mine.logits.tolist() == other.logits.tolist()
        assert mine.steps.tolist() == other.steps.tolist() == ([1, 1, 2, 1, 2] if first == 0 else [3, 3, 4, 2, 4])


def test_an_engine_that_fails_in_the_background_fails_the_batch_and_not_the_wait_for_it():
    broken = processor(BrokenStepper(), 1)
    begun = broken.begin(batch(0), lambda _: None)
    assert begun is not None
    begun.wait()
    with pytest.raises(FloatingPointError, match="broken"):
        broken.finish(begun, lambda _: None)


def test_records_behind_the_position_are_no_batch():
    done = processor(DigestStepper(), 1)
    begun = done.begin(batch(0), lambda _: None)
    assert begun is not None
    done.finish(begun, lambda _: None)
    assert done.begin(batch(0), lambda _: None) is None
