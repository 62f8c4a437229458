from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.unit.model.architectures import layer, program
from worker.errors import ModelNotStreamable
from worker.model.compile import RULES
from worker.model.contract import TOLERANCE, verify
from worker.model.numpy_stepper import NumpyStepper

LAYERS = [
    layer("LSTM", units=4, return_sequences=True),
    layer("LeakyReLU"),
    layer("GRU", units=3, reset_after=True),
    layer("Dense", units=1, activation="sigmoid"),
]


def test_a_right_program_is_verified_within_the_tolerance():
    verification = verify(program(LAYERS))

    assert 0 < verification.largest_difference <= TOLERANCE
    assert verification.timesteps == 5


def test_a_model_of_any_length_is_verified_too():
    assert verify(program(LAYERS, timesteps=None)).timesteps == 12


@pytest.mark.parametrize("class_name", ["LSTM", "LeakyReLU", "GRU", "Dense"])
def test_a_broken_rule_is_found(class_name, monkeypatch):
    right = RULES[class_name]

    def broken(given):
        node = right(given)

        def step(xp, x, state, steps):
            y, after = node.step(xp, x, state, steps)
            return y + np.float32(1e-3), after

        return dataclasses.replace(node, step=step, in_place=None)

    monkeypatch.setitem(RULES, class_name, broken)

    with pytest.raises(ModelNotStreamable, match="differs from a float64 evaluation"):
        verify(program(LAYERS))


def test_a_rule_that_mixes_the_rows_of_a_batch_is_found(monkeypatch):
    right = RULES["LeakyReLU"]

    def mixing(given):
        node = right(given)

        def step(xp, x, state, steps):
            y, after = node.step(xp, x, state, steps)
            return y + 0 * x.sum(), after

        return dataclasses.replace(node, step=step)

    monkeypatch.setitem(RULES, "LeakyReLU", mixing)

    with pytest.raises(ModelNotStreamable, match="differs"):
        verify(program(LAYERS))


def test_a_rule_that_keeps_what_another_stream_left_is_found(monkeypatch):
    right = RULES["GRU"]

    def forgetful(given):
        node = right(given)
        last = {}

        def step(xp, x, state, steps):
            y, after = node.step(xp, x, state, steps)
            left = last.get(len(x), after)
            last[len(x)] = after.copy()
            return y, left

        return dataclasses.replace(node, step=step)

    monkeypatch.setitem(RULES, "GRU", forgetful)

    with pytest.raises(ModelNotStreamable, match="differs"):
        verify(program(LAYERS))


def test_an_engine_that_does_not_write_the_state_is_found():
    compiled = program(LAYERS)

    class Forgetting(NumpyStepper):
        def step_batch(self, slots, features, states, steps):
            return super().step_batch(slots, features, states.copy(), steps)

    with pytest.raises(ModelNotStreamable, match="differs"):
        verify(compiled, Forgetting(compiled))
