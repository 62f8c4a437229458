"""From numbers to output rows: closing records, exactness, and what `emit` leaves out."""

from __future__ import annotations

import numpy as np

from tests.oracle import Given
from tests.unit.core.helpers import Core, rules, toy_logit
from worker.core.publishing import Emission, Emit


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
