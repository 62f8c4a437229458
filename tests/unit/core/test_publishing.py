"""From numbers to output rows: closing records, exactness, and what `emit` leaves out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle import Given, Oracle
from tests.unit.core.helpers import FINGERPRINT, Core, ToyModel, ToyReadout, ToyStepper, rules, toy_logit
from tests.unit.core.test_routing import cut, histories
from worker.core.publishing import Emission, Emit
from worker.core.state_row import RowFormat


def run(records: list[Given], emission: Emission | None = None, **kwargs: object):
    core = Core(rules(**kwargs), emission=emission or Emission())
    return core.run(records)[1].predictions


def test_a_closing_record_repeats_the_last_samples_numbers_from_an_earlier_batch():
    core = Core(rules())
    core.run([Given(0, 0, b"a", 0, (4.0,)), Given(0, 1, b"a", 1, (5.0,))])
    predictions = core.run([Given(0, 2, b"a", 9)])[1].predictions
    assert predictions.logits[:, 0].tolist() == [toy_logit([4.0, 5.0])]
    assert (predictions.steps.tolist(), predictions.closing.tolist(), predictions.final.tolist()) == (
        [2],
        [True],
        [True],
    )
    assert (predictions.source_offsets.tolist(), predictions.event_times.tolist()) == ([2], [9])


def test_a_closing_record_repeats_the_last_samples_numbers_from_the_same_batch():
    predictions = run([Given(0, 0, b"a", 0, (4.0,)), Given(0, 1, b"a", 1)])
    assert predictions.logits[:, 0].tolist() == [4.0, 4.0]


def test_a_tainted_row_is_never_exact():
    records = [Given(0, i, b"a", i, (1.0,)) for i in range(4)]
    records.insert(3, Given(0, 3, b"a", 3, bad=True))
    predictions = run([Given(0, i, r.key, i, r.features, bad=r.bad) for i, r in enumerate(records)])
    assert predictions.exact.tolist() == [False, False, True, False]
    assert predictions.tainted.tolist() == [False, False, False, True]


def test_emit_final_publishes_one_record_a_sequence():
    predictions = run([Given(0, i, b"a", i, (1.0,)) for i in range(6)], Emission(Emit.FINAL), length=3)
    assert predictions.steps.tolist() == [3, 3]


def test_emit_changes_publishes_the_first_the_final_and_the_moves_above_the_threshold():
    values = [10000.0, 0.0, 0.0, 1.0]
    records = [Given(0, i, b"a", i, (v,)) for i, v in enumerate(values)]
    logits = [toy_logit(values[: i + 1]) / 65521 for i in range(4)]
    assert [round(v, 2) for v in logits] == [0.15, 0.46, 0.37, 0.12]
    assert run(records, Emission(Emit.CHANGES, 0.2, 0.0)).steps.tolist() == [1, 2, 4]
    assert run(records, Emission(Emit.CHANGES, 0.2, 0.2)).steps.tolist() == [1, 2]


def test_numbers_of_one_row_are_float32():
    assert run([Given(0, 0, b"a", 0, (1.0,))]).probabilities.dtype == np.float32


class TwoOutputs(ToyStepper):
    """The second number is the first one's negative."""

    columns = 2

    def step_batch(self, slots, features, states, steps):
        logits = super().step_batch(slots, features, states, steps)
        return np.concatenate([logits, -logits], axis=1)


def calibrated(stepper: ToyStepper) -> ToyModel:
    model = ToyModel(stepper)
    model.readout.calibration_id = "c"
    return model


def probability(samples) -> float:
    return float(np.float32(toy_logit([x for (x,) in samples])) / np.float32(65521))


@settings(max_examples=300, deadline=None)
@given(
    histories(),
    st.lists(st.integers(1, 12), max_size=12),
    st.sampled_from([0, 3, 5]),
    st.sampled_from(["taint", "reset", "reject"]),
    st.sampled_from([0, 0, 2000]),
)
def test_every_increment_of_a_sequence_is_a_forecast_once_whatever_the_batches(records, sizes, length, on_gap, idle):
    expected = [
        (probability(row.samples[:-1]), probability(row.samples))
        for row in Oracle(length, on_gap, idle).feed(records).outputs
        if row.step > 1 and not row.closing
    ]
    core = Core(rules(length, on_gap, idle), models=[calibrated(ToyStepper())])
    found: list[tuple[float, float]] = []
    for batch in cut(records, sizes):
        before, after = core.run(batch)[1].forecasts
        found += zip(before.tolist(), after.tolist(), strict=True)
        core.commit()
    assert sorted(found) == sorted(expected)


def test_forecasts_are_of_every_output():
    core = Core(rules(), row_format=RowFormat(FINGERPRINT, 2, 2), models=[calibrated(TwoOutputs())])
    core.run([Given(0, 0, b"a", 0, (1.0,))])
    before, after = core.run([Given(0, 1, b"a", 1, (2.0,)), Given(0, 2, b"a", 2, (3.0,))])[1].forecasts
    paths = [probability([(1.0,), (2.0,), (3.0,)][:count]) for count in (1, 2, 3)]
    increments = [*pairwise(paths)]
    increments += [(-first, -second) for first, second in increments]
    assert sorted(zip(before.tolist(), after.tolist(), strict=True)) == sorted(increments)


def test_without_a_calibration_no_number_is_a_forecast():
    core = Core(rules())
    assert ToyReadout.calibration_id is None
    assert core.run([Given(0, i, b"a", i, (1.0,)) for i in range(2)])[1].forecasts is None
