"""The samples of several models in one batch, each with the columns that its model gives."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.holding import HoldingStepper
from tests.unit.core.helpers import ToyModel, ToyStepper
from worker.core.row_formats import RowFormats
from worker.core.slots import StreamTable
from worker.core.state_row import RowFormat
from worker.core.stepping import step_routed


class ScoringStepper(ToyStepper):
    """Behind the logit ten times the state: a score."""

    columns = 2

    def step_batch(self, slots, features, states, steps):
        logits = super().step_batch(slots, features, states, steps)
        return np.concatenate([logits, 10 * logits], axis=1)


@pytest.fixture
def table() -> StreamTable:
    """Four streams in slots 0 to 3."""
    formats = RowFormats((RowFormat("11" * 32, 1, 2), RowFormat("22" * 32, 1, 5)))
    made = StreamTable(formats, 8)
    made.add_partition(0, store_is_empty=True)
    slots = made.resolve(np.zeros(4, np.int32), [b"a", b"b", b"c", b"d"], lambda *_: [])
    assert slots.tolist() == [0, 1, 2, 3]
    return made


def routed(models: list[int] | None) -> SimpleNamespace:
    """First samples of four streams and a second one of the first."""
    which = None if models is None else np.array(models, np.uint8)
    return SimpleNamespace(models=which, slots=np.array([0, 1, 2, 3, 0]), steps=np.array([1, 1, 1, 1, 2], np.int32))


FEATURES = np.array([[1], [2], [3], [4], [5]], np.float32)
NAN = float("nan")


@pytest.mark.parametrize("wrapped", [lambda stepper: stepper, HoldingStepper])
@pytest.mark.parametrize(
    ("served", "older", "scores"),
    [
        (ScoringStepper, ToyStepper, [10, NAN, NAN, 40, 80]),
        (ToyStepper, ScoringStepper, [NAN, 20, 30, NAN, NAN]),
    ],
)
def test_columns_that_a_model_does_not_give_are_nan(table, wrapped, served, older, scores):
    models = [ToyModel(wrapped(served(factor=3, state_size=2))), ToyModel(wrapped(older(factor=7, state_size=5)))]

    answers = step_routed(models, routed([0, 1, 1, 0, 0]), FEATURES, table)

    np.testing.assert_array_equal(answers, np.array([[1, 2, 3, 4, 8], scores], np.float32).T)
    assert answers.dtype == np.float32


@pytest.mark.parametrize(("stepper", "columns"), [(ScoringStepper, 2), (ToyStepper, 1)])
def test_samples_of_the_served_model_alone_have_its_columns(table, stepper, columns):
    models = [ToyModel(stepper()), ToyModel(ScoringStepper(7, 5))]

    assert step_routed(models, routed(None), FEATURES, table).shape == (5, columns)
    assert step_routed(models[:1], routed([0] * 5), FEATURES, table).shape == (5, columns)
