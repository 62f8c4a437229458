from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.unit.model.architectures import layer, model_file, program
from tests.unit.model.test_program import weighted
from worker.errors import ModelNotStreamable
from worker.model.compile import RULES, compile_model
from worker.model.contract import TOLERANCE, TOLERANCE_MAX, verify
from worker.model.engines import stepper_for
from worker.model.numpy_stepper import NumpyStepper

LAYERS = [
    layer("LSTM", units=4, return_sequences=True),
    layer("LeakyReLU"),
    layer("GRU", units=3, reset_after=True),
    layer("Dense", units=1, activation="sigmoid"),
]

MAGNIFYING = [layer("LSTM", units=96), layer("Dense", units=1, activation="sigmoid")]
"""With random weights as large as those of few units."""


def break_rule(class_name, monkeypatch, by):
    right = RULES[class_name]

    def broken(given):
        node = right(given)

        def step(xp, x, state, steps):
            y, after = node.step(xp, x, state, steps)
            return y + np.float32(by), after

        return dataclasses.replace(node, step=step, in_place=None)

    monkeypatch.setitem(RULES, class_name, broken)


def test_a_right_program_is_verified_within_the_tolerance():
    verification = verify(program(LAYERS))

    assert 0 < verification.largest_difference <= TOLERANCE
    assert verification.timesteps == 5


def test_a_model_of_any_length_is_verified_too():
    assert verify(program(LAYERS, timesteps=None)).timesteps == 12


def test_numbers_beyond_one_are_compared_by_their_share():
    weights = {"head": [np.full((4, 1), 500, np.float32), np.full(1, 1000, np.float32)]}
    large = program([layer("LSTM", units=4), layer("Dense", units=1, name="head")], weights=weights)

    assert verify(large).largest_difference <= TOLERANCE


def test_a_model_that_magnifies_rounding_may_differ_by_what_it_magnifies():
    assert TOLERANCE < verify(program(MAGNIFYING, timesteps=64)).largest_difference <= TOLERANCE_MAX


def test_of_ids_it_is_the_rows_of_the_table_that_are_rounded():
    generator = np.random.default_rng(3)
    table = generator.standard_normal((50, 8)).astype(np.float32)
    lstm = [generator.normal(0, 0.4, shape).astype(np.float32) for shape in ((8, 384), (96, 384), (384,))]
    words = layer("Embedding", input_dim=50, output_dim=8, batch_shape=[None, 64], name="words")
    weights = {"words": [table], "layer_1": lstm}
    file = model_file([words, *MAGNIFYING], timesteps=64, weights=weights)
    file.configuration["config"]["layers"].pop(0)

    assert TOLERANCE < verify(compile_model(file)).largest_difference <= TOLERANCE_MAX


def test_a_model_whose_outputs_are_not_numbers_is_refused():
    large = [layer("Rescaling", scale=3e38)] * 9
    nothing = program([*large, layer("LayerNormalization", scale=False, center=False), *LAYERS])

    with pytest.raises(ModelNotStreamable, match="outputs are not numbers"):
        verify(nothing)


def test_such_a_model_hides_no_broken_rule(monkeypatch):
    break_rule("LSTM", monkeypatch, by=1e-4)

    with pytest.raises(ModelNotStreamable, match="differs from a float64 evaluation"):
        verify(program(MAGNIFYING, timesteps=64))


def test_a_model_whose_output_is_nothing_but_rounding_says_so():
    chaotic = program([layer("SimpleRNN", units=64), LAYERS[-1]], timesteps=128)

    with pytest.raises(ModelNotStreamable, match="magnifies rounding"):
        verify(chaotic)


@pytest.mark.parametrize("class_name", ["LSTM", "LeakyReLU", "GRU", "Dense"])
def test_a_broken_rule_is_found(class_name, monkeypatch):
    break_rule(class_name, monkeypatch, by=1e-3)

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


class Scored(NumpyStepper):
    """Its scores are changed by `change(scores, steps)`."""

    def __init__(self, compiled, change):
        super().__init__(compiled)
        self.change, self.outputs = change, compiled.outputs

    def step_batch(self, slots, features, states, steps):
        answers = super().step_batch(slots, features, states, steps)
        answers[:, self.outputs :] = self.change(answers[:, self.outputs :], steps)
        return answers


def test_scores_are_verified_and_do_not_count_as_outputs():
    plain = verify(program(LAYERS))

    assert verify(weighted(program(LAYERS), steps=3)) == plain
    assert verify(weighted(program(LAYERS), steps=9)) == plain


@pytest.mark.parametrize("engine", ["numpy", "kernel"])
@pytest.mark.parametrize("layers", [LAYERS, MAGNIFYING])
def test_scores_of_large_terms_that_cancel_may_differ_by_what_these_are_rounded(layers, engine):
    scored = weighted(program(layers, timesteps=64), steps=63, scale=300)

    verify(scored, stepper_for(scored, engine))


@pytest.mark.parametrize(
    "change",
    [
        lambda scores, _: scores * np.float32(1.001),
        lambda scores, _: np.full_like(scores, np.nan),
        lambda scores, steps: scores + np.float32(1e-4) * (steps == 1)[:, None],
        lambda scores, steps: scores + np.float32(1e-4) * (steps > 3)[:, None],
    ],
)
def test_an_engine_of_other_scores_is_found(change):
    scored = weighted(program(LAYERS), steps=3)

    with pytest.raises(ModelNotStreamable, match="scores of the state differ from NumPy's"):
        verify(scored, Scored(scored, change))


def test_a_broken_rule_is_not_taken_for_wrong_scores(monkeypatch):
    break_rule("GRU", monkeypatch, by=1e-3)

    with pytest.raises(ModelNotStreamable, match="differs from a float64 evaluation"):
        verify(weighted(program(LAYERS)))
