"""Which number is published at which step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.model.programs import SummingProgram
from worker.core.types import Float32Array, Int32Array
from worker.errors import ConfigError, ModelNotStreamable
from worker.model.calibration import Calibration, forecast
from worker.model.calibration_fit import fit_calibration
from worker.model.readout import Readout

T = 10


def program_of(outputs: int = 1, exactness: str = "end") -> SummingProgram:
    activation = "softmax" if outputs > 1 else "sigmoid"
    return SummingProgram(timesteps=T, outputs=outputs, activation=activation, exactness=exactness)


def calibration_of(program: SummingProgram) -> Calibration:
    parts = np.random.default_rng(7).normal(size=(60, T, program.outputs))
    logits = np.cumsum(parts, axis=1).astype(np.float32)
    return fit_calibration(program, logits, [str(i) for i in range(len(logits))], "test")[0]


def rows(outputs: int, count: int = 500, seed: int = 0) -> tuple[Float32Array, Int32Array]:
    random = np.random.default_rng(seed)
    return (
        (random.normal(size=(count, outputs)) * 5).astype(np.float32),
        random.integers(1, T + 1, count).astype(np.int32),
    )


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("calibrated", [False, True])
def test_the_last_step_is_the_models_own_number_with_and_without_a_calibration(outputs: int, calibrated: bool) -> None:
    program = program_of(outputs)
    readout = Readout(program, calibration_of(program) if calibrated else None)
    logits, steps = rows(outputs)
    probabilities, exact = readout.publish(logits, steps)
    np.testing.assert_array_equal(exact, steps == T)
    np.testing.assert_array_equal(probabilities[exact], program.outputs_of(logits[exact]))


def test_without_a_calibration_an_end_model_says_nothing_before_the_last_step() -> None:
    readout = Readout(program_of())
    probabilities, exact = readout.publish(*rows(1))
    assert np.isnan(probabilities[~exact]).all()
    assert readout.calibration_id is None


@pytest.mark.parametrize("outputs", [1, 3])
def test_with_a_calibration_every_step_has_a_probability_and_early_ones_are_not_exact(outputs: int) -> None:
    program = program_of(outputs)
    calibration = calibration_of(program)
    readout = Readout(program, calibration)
    logits, steps = rows(outputs)
    probabilities, exact = readout.publish(logits, steps)
    assert probabilities.dtype == np.float32
    assert np.isfinite(probabilities).all()
    assert not exact[steps < T].any()
    assert readout.calibration_id == calibration.id


@pytest.mark.parametrize("outputs", [1, 3])
def test_float32_probabilities_equal_those_of_float64_within_a_millionth(outputs: int) -> None:
    program = program_of(outputs)
    calibration = calibration_of(program)
    logits, steps = rows(outputs, 5000)
    early = steps < T
    published, _ = Readout(program, calibration).publish(logits, steps)
    own, at = logits[early].astype(np.float64), steps[early] - 1
    if outputs > 1:
        own = own - np.log(np.exp(own).sum(axis=1, keepdims=True))
    predictors = calibration.intercepts[at] + np.einsum("nj,njk->nk", own, calibration.slopes[at])
    predictors = np.clip(predictors, calibration.lowest[at], calibration.highest[at])
    powers = np.exp(predictors)
    expected = powers / powers.sum(axis=1, keepdims=True) if outputs > 1 else powers / (1 + powers)
    np.testing.assert_allclose(published[early], expected, atol=1e-6)


@given(seed=st.integers(0, 1000), cut=st.integers(0, 40))
@settings(deadline=None, max_examples=50)
def test_a_row_is_published_alike_whatever_rows_are_beside_it(seed: int, cut: int) -> None:
    program = program_of()
    readout = Readout(program, calibration_of(program))
    logits, steps = rows(1, 40, seed)
    whole, exact = readout.publish(logits, steps)
    parts = [readout.publish(logits[part], steps[part]) for part in (slice(0, cut), slice(cut, 40))]
    np.testing.assert_allclose(np.concatenate([part[0] for part in parts]), whole, atol=1e-7)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), exact)


def test_a_model_with_defined_prefixes_is_exact_at_every_step() -> None:
    program = program_of(exactness="prefix")
    logits, steps = rows(1)
    probabilities, exact = Readout(program).publish(logits, steps)
    assert exact.all()
    np.testing.assert_array_equal(probabilities, program.outputs_of(logits))


def test_a_calibration_takes_the_place_of_a_models_own_early_numbers_and_is_not_exact() -> None:
    program = SummingProgram(timesteps=T, exactness="prefix", exact_from=3, computed_from=3)
    calibration = calibration_of(program)
    logits, steps = rows(1)
    probabilities, exact = Readout(program, calibration).publish(logits, steps)
    assert (exact == (steps == T)).all()
    assert np.isnan(probabilities[steps < 3]).all()
    early = (steps >= 3) & (steps < T)
    wanted = forecast(calibration.table(), "sigmoid", logits[early], None, steps[early])
    np.testing.assert_array_equal(probabilities[early], wanted)
    np.testing.assert_array_equal(probabilities[exact], program.outputs_of(logits[exact]))
    assert "null before step 3, then the calibrated forecast" in Readout(program, calibration).describe()


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_logit_that_is_no_number_stays_none(outputs: int) -> None:
    program = program_of(outputs)
    readout = Readout(program, calibration_of(program))
    logits = np.full((2, outputs), np.nan, np.float32)
    probabilities, _ = readout.publish(logits, np.array([3, T], np.int32))
    assert np.isnan(probabilities).all()


def test_extreme_logits_give_probabilities_without_warnings() -> None:
    program = program_of()
    readout = Readout(program, calibration_of(program))
    with np.errstate(all="raise"):
        probabilities, _ = readout.publish(np.array([[-3e38], [3e38]], np.float32), np.array([1, 2], np.int32))
    assert ((probabilities > 0) & (probabilities < 1)).all()


def test_a_head_without_probabilities_is_refused_with_the_way_out() -> None:
    with pytest.raises(ModelNotStreamable, match=r"linear.*sigmoid or softmax"):
        Readout(SummingProgram(activation="linear", is_probability=False))


def test_another_models_calibration_is_refused() -> None:
    calibration = calibration_of(program_of())
    with pytest.raises(ConfigError, match=r"a{64}.*b{64}.*lstm-worker calibrate"):
        Readout(SummingProgram(timesteps=T, fingerprint="b" * 64), calibration)


def test_the_line_for_the_log_says_what_is_published_before_the_last_step() -> None:
    program = program_of()
    assert "null before step 10" in Readout(program).describe()
    assert "lstm-worker calibrate" in Readout(program).describe()
    calibration = calibration_of(program)
    assert calibration.id in Readout(program, calibration).describe()
    assert "every step" in Readout(program_of(exactness="prefix")).describe()
