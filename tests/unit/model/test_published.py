"""What is published of whole sequences, and by which readout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.model.architectures import layer, program
from worker.errors import ModelNotStreamable
from worker.model.numpy_stepper import NumpyStepper
from worker.model.published import published, with_readout


@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_a_head_without_probability_is_refused_by_its_name_and_the_files(activation):
    served = program([layer("LSTM", units=2), layer("Dense", units=1, activation=activation, name="answer")])

    assert served.heads_without_probability == ("answer",)
    with pytest.raises(ModelNotStreamable, match=r"^some/model.keras: layer 'answer' ends the model and gives no prob"):
        with_readout(served, Path("some/model.keras"))


class Overflowing(NumpyStepper):
    """Whose third step is not finite in the second of two sequences, and finite again after it."""

    def step_batch(self, slots, features, states, steps):
        logits = super().step_batch(slots, features, states, steps)
        logits[(slots == 1) & (steps == 3)] = np.inf
        return logits


def test_a_sequence_has_no_numbers_after_one_that_is_not_finite():
    served = program([layer("LSTM", units=2), layer("Dense", units=1, activation="sigmoid")])
    samples = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)

    outputs, exact = published(served, Overflowing(served), with_readout(served, Path("m.keras"))[1], samples)

    assert exact.all()
    assert np.isnan(outputs[:, :, 0]).tolist() == [[False] * 5, [False, False, True, True, True]]
    np.testing.assert_allclose(outputs[0], served.outputs_of(served.whole(samples)[0]), atol=1e-6)
