"""What a calibration promises: the numbers of each step, what few or empty data get, and its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.model.programs import RememberingProgram, SummingProgram
from worker.core.types import Float32Array
from worker.errors import ConfigError
from worker.model.calibration import (
    Calibration,
    Table,
    forecast,
    load_calibration,
    own_predictors,
)
from worker.model.calibration_fit import (
    CrossFit,
    check_calibratable,
    fit_calibration,
    forecasts_of,
    partial_logits,
    published_paths,
    states_by_step,
)
from worker.model.folds import folds_of
from worker.model.load import load_program
from worker.model.numpy_stepper import NumpyStepper
from worker.model.program import StepProgram
from worker.model.readout import Readout
from worker.model.scores import log_loss

GOLDENS = Path(__file__).parents[2] / "goldens"
T = 10
PROGRAM = SummingProgram(timesteps=T)


def fitted(
    logits: Float32Array, program: SummingProgram = PROGRAM, recordings: list[str] | None = None, method: str = "test"
) -> tuple[Calibration, CrossFit]:
    """On logits alone; each sequence a recording unless said otherwise."""
    return fit_calibration(program, logits, recordings or [str(i) for i in range(len(logits))], method)


def fit(logits: Float32Array, program: SummingProgram = PROGRAM) -> Calibration:
    return fitted(logits, program)[0]


def by_logits(table: Table, activation: str, logits: Float32Array) -> Float32Array:
    """Forecasts (N, T - 1, K) of logits (N, T, K)."""
    steps = np.tile(np.arange(1, T, dtype=np.int32), len(logits))
    flat = logits[:, :-1].reshape(-1, logits.shape[2])
    return forecast(table, activation, flat, None, steps).reshape(len(logits), T - 1, -1)


def sigmoid(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))


def random_walks(sequences: int, seed: int = 0, outputs: int = 1) -> Float32Array:
    """Logits (N, T, K) of sequences whose parts are independent."""
    parts = np.random.default_rng(seed).normal(size=(sequences, T, outputs))
    return np.cumsum(parts, axis=1).astype(np.float32)


def unrelated_logits(sequences: int, seed: int) -> Float32Array:
    """Logits whose early sums say nothing about the last one, which is high in every fourth sequence."""
    logits = np.random.default_rng(seed).normal(size=(sequences, T, 1)).astype(np.float32)
    logits[:, -1, 0] = np.where(np.arange(sequences) % 4 == 0, 8, -8)
    return logits


@pytest.mark.parametrize(("intercept", "slope"), [(-0.8, 1.5), (0.5, -0.7), (0.0, 0.0)])
def test_the_fit_recovers_intercept_and_slope_from_many_sequences(intercept: float, slope: float) -> None:
    random = np.random.default_rng(1)
    logits = random.normal(size=(8000, T, 1)).astype(np.float32)
    logits[:, :-1] = logits[:, :1]  # every step tells the same
    likely = sigmoid(intercept + slope * logits[:, 0, 0])
    logits[:, -1, 0] = np.where(random.random(8000) < likely, 12, -12)
    calibration = fit(logits)
    np.testing.assert_allclose(calibration.intercepts[:, 0], intercept, atol=0.12)
    np.testing.assert_allclose(calibration.slopes[:, 0, 0], slope, atol=0.12)


def test_the_forecast_of_independent_parts_is_the_expected_last_number() -> None:
    logits = random_walks(4000, seed=2)
    table = fit(logits).table()
    forecasts = by_logits(table, "sigmoid", logits)[:, :, 0].astype(np.float64)
    final = sigmoid(logits[:, -1, 0].astype(np.float64))
    np.testing.assert_allclose(forecasts.mean(axis=0), final.mean(), atol=0.005)
    for step in (2, 5, 9):
        high = logits[:, step - 1, 0] > 1
        assert abs(forecasts[high, step - 1].mean() - final[high].mean()) < 0.02


@pytest.mark.parametrize("seed", range(5))
def test_twenty_sequences_of_pure_noise_get_about_the_base_rate(seed: int) -> None:
    calibration = fit(unrelated_logits(20, seed))
    unseen = unrelated_logits(200, seed + 100)
    forecasts = by_logits(calibration.table(), calibration.activation, unseen)
    assert abs(forecasts.mean() - 0.25) < 0.04
    assert np.abs(forecasts - 0.25).mean() < 0.06
    assert forecasts.max() < 0.75


def test_early_steps_that_separate_few_sequences_perfectly_do_not_become_certain() -> None:
    side = np.where(np.arange(20) % 2 == 0, 1, -1)
    logits = np.random.default_rng(0).normal(side[:, None, None], 0.35, (20, T, 1)).astype(np.float32)
    logits[:, -1, 0] = side * 9
    assert (np.sign(logits[:, 0, 0]) == side).all()
    centres = np.array([[-1.0], [1.0]], np.float32)
    table = fit(logits).table()
    low, high = forecast(table, "sigmoid", centres, None, np.array([1, 1], np.int32))[:, 0]
    assert 0.01 < low < 0.1
    assert 0.9 < high < 0.99


def test_logits_outside_the_seen_range_are_not_extrapolated() -> None:
    logits = random_walks(100, seed=3)
    table = fit(logits).table()
    steps = np.array([1, 1], np.int32)
    top = logits[:, 0].max()
    seen, beyond = forecast(table, "sigmoid", np.array([[top], [top + 50]], np.float32), None, steps)
    np.testing.assert_allclose(seen, beyond, atol=1e-6)


def test_constant_early_logits_get_the_base_rate_whatever_comes_later() -> None:
    logits = random_walks(50, seed=4)
    logits[:, 0] = 0.25
    calibration = fit(logits)
    first = forecast(
        calibration.table(), "sigmoid", np.array([[0.25], [9]], np.float32), None, np.array([1, 1], np.int32)
    )
    np.testing.assert_allclose(first, sigmoid(logits[:, -1]).mean(), atol=0.05)


@given(seed=st.integers(0, 10_000), scale=st.floats(1e-6, 1e3), outputs=st.sampled_from([1, 3]))
@settings(deadline=None, max_examples=40)
def test_any_scale_of_logits_gives_finite_numbers_and_the_same_numbers_again(
    seed: int, scale: float, outputs: int
) -> None:
    program = SummingProgram(timesteps=T, outputs=outputs, activation="softmax" if outputs > 1 else "sigmoid")
    logits = random_walks(25, seed, outputs) * np.float32(scale)
    calibration = fit(logits, program)
    assert all(np.isfinite(part).all() for part in calibration.table())
    assert fit(logits, program).id == calibration.id
    forecasts = by_logits(calibration.table(), calibration.activation, logits)
    assert ((forecasts >= 0) & (forecasts <= 1)).all()
    if outputs > 1:
        np.testing.assert_allclose(forecasts.sum(axis=2), 1, atol=1e-6)


def test_softmax_classes_are_forecast_better_than_by_the_partial_sum() -> None:
    program = SummingProgram(timesteps=T, outputs=3, activation="softmax")
    logits = random_walks(400, seed=5, outputs=3)
    logits[:, :, 0] += np.linspace(3, 0, T, dtype=np.float32)  # early sums favour class 0 wrongly
    forecasts = fitted(logits, program)[1].forecasts
    final = program.outputs_of(logits[:, -1])
    for step in (1, 4, 8):
        assert log_loss(forecasts[:, step - 1], final) < log_loss(program.outputs_of(logits[:, step - 1]), final)


def test_classes_are_calibrated_together_and_not_one_by_one() -> None:
    program = SummingProgram(timesteps=T, outputs=3, activation="softmax")
    logits = random_walks(6000, seed=8, outputs=3)
    logits[:, -1] *= np.array([3, 1, 0.2], np.float32)  # classes that differ in how far they move
    forecasts, final = by_logits(fit(logits, program).table(), "softmax", logits), program.outputs_of(logits[:, -1])
    for step in (3, 6, 9):
        for k in range(3):
            p = forecasts[:, step - 1, k]
            for part in np.array_split(np.argsort(p), 5):
                assert abs(p[part].mean() - final[part, k].mean()) < 0.045


def test_own_predictors_are_those_of_the_models_probabilities_and_leave_the_logits_as_they_are() -> None:
    logits = (np.random.default_rng(0).normal(size=(20, 4)) * 30).astype(np.float32)
    before = logits.copy()
    probabilities = SummingProgram(outputs=4, activation="softmax").outputs_of(logits.astype(np.float64))
    own = own_predictors(logits, "softmax")
    np.testing.assert_allclose(np.exp(own.astype(np.float64)), probabilities, atol=1e-6)
    assert np.isfinite(own).all()
    np.testing.assert_array_equal(logits, before)
    np.testing.assert_array_equal(own_predictors(logits, "sigmoid"), logits)


def test_fewer_than_twenty_sequences_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"19 complete sequences are too few.*at least 20"):
        fit(random_walks(19))


def test_logits_that_are_not_finite_are_refused() -> None:
    logits = random_walks(20)
    logits[3, 4] = np.nan
    with pytest.raises(ConfigError, match="not finite"):
        fit(logits)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (SummingProgram(exactness="prefix", one_output_per_step=True), "each step's own"),
        (SummingProgram(exactness="prefix", timesteps=None), "any length: give theirs by --timesteps"),
        (SummingProgram(exactness="prefix", activation="linear"), "ends in linear"),
        (SummingProgram(exact_from=10, computed_from=10), "nothing before its last step"),
        (SummingProgram(timesteps=1), "no step before"),
        (SummingProgram(activation="linear"), "ends in linear"),
        (SummingProgram(activation="softmax"), "softmax with 1 output"),
    ],
)
def test_models_without_anything_to_calibrate_are_refused(program: SummingProgram, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_calibratable(program, "m.keras")


def test_groups_are_left_out_together_and_folds_are_alike() -> None:
    groups = [f"recording-{i // 3}" for i in range(60)]
    final = np.where(np.arange(60) // 3 % 4 == 0, 5, -5)[:, None].astype(np.float32)
    found = folds_of(final, groups)
    folds = found.of_sequence
    assert found.by_recording
    for name in set(groups):
        assert len({fold for fold, group in zip(folds, groups, strict=True) if group == name}) == 1
    assert [int((final[folds == fold] > 0).sum()) for fold in range(5)] == [3] * 5


@pytest.mark.parametrize("sizes", [[30, 1, 1, 1, 1], [40, 2, 2, 2, 2]])
def test_a_recording_too_large_to_leave_out_is_left_out_sequence_by_sequence_and_finite(sizes: list[int]) -> None:
    recordings = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    found = fitted(random_walks(len(recordings)), recordings=recordings)[1]
    assert not found.by_recording
    assert np.isfinite(found.forecasts).all()


def test_fewer_than_five_recordings_are_refused_however_many_windows_they_have() -> None:
    with pytest.raises(ConfigError, match=r"of 4 recording\(s\) are too few.*at least 5 recordings"):
        fitted(random_walks(100), recordings=[str(i % 4) for i in range(100)])


def test_cross_fitted_forecasts_do_not_depend_on_the_forecast_sequence_itself() -> None:
    logits = random_walks(40, seed=6)
    before = fitted(logits)[1].forecasts
    own = int(np.argmax(logits[:, -1, 0]))
    changed = logits.copy()
    changed[own, -1] += 30  # still the highest, so the folds stay
    after = fitted(changed)[1].forecasts
    np.testing.assert_array_equal(after[own], before[own])
    assert (after != before).any()


def test_partial_logits_are_the_programs_step_by_step() -> None:
    features = np.random.default_rng(0).normal(size=(1030, T, 1)).astype(np.float32)
    done: list[int] = []
    logits = partial_logits(PROGRAM, features, done.append)
    np.testing.assert_allclose(logits, np.cumsum(features, axis=1), atol=1e-5)
    assert sum(done) == 1030 * T


def test_early_decisions_are_counted_only_where_they_may_be_promised() -> None:
    logits, names = random_walks(200), [str(i) for i in range(200)]
    assert not fit_calibration(PROGRAM, logits, names, "test", promises=False)[0].decided_early.any()
    found = fit(logits)
    assert found.decided_early.any()
    assert (found.taken_back <= found.decided_share).all()
    assert (found.decided_share <= found.decided_early).all()


def test_a_model_with_defined_prefixes_is_forecast_with_less_surprise_than_by_its_own_early_numbers() -> None:
    program = SummingProgram(timesteps=T, exactness="prefix")
    logits = random_walks(2000)
    logits[:, :-1] *= 4  # far too sure before the last step, which alone was trained
    calibration = fit(logits[:1000], program)
    forecasts, final = by_logits(calibration.table(), "sigmoid", logits[1000:])[:, :, 0], logits[1000:, -1, 0]
    for step in range(1, T):
        own = sigmoid(logits[1000:, step - 1, 0])
        assert log_loss(forecasts[:, step - 1], sigmoid(final)) < log_loss(own, sigmoid(final))


def test_steps_before_the_first_full_window_get_the_base_rate_whatever_their_logits_are() -> None:
    program = SummingProgram(timesteps=T, exactness="prefix", exact_from=4, computed_from=4)
    samples = np.random.default_rng(1).normal(size=(200, T, 1)).astype(np.float32)
    logits = partial_logits(program, samples)
    assert (logits[:, :3] == 0).all()
    assert (logits[:, 3:] != 0).all()
    calibration = fit(logits, program)
    np.testing.assert_allclose(calibration.slopes[:3], 0)
    assert not calibration.state_slopes[:3].any()


@pytest.fixture(scope="module")
def reference() -> tuple[StepProgram, Float32Array]:
    """A real model, and samples whose size at step 1 says more than the partial sum of what is to come."""
    program = load_program(GOLDENS / "lstm_flatten.keras")
    samples = np.random.default_rng(3).normal(size=(1500, program.timesteps, program.features)).astype(np.float32)
    samples[:, 1:] += 2 * samples[:, :1] * np.array([-1, 1, -1, 1, -1], np.float32)[:, None]
    return program, samples


REMEMBERING = RememberingProgram(timesteps=T)


def returning(sequences: int, seed: int) -> Float32Array:
    """Samples (N, T, 1) of which the last is three times the first: the sum so far says little of that."""
    samples = np.random.default_rng(seed).normal(size=(sequences, T, 1)).astype(np.float32)
    samples[:, -1] = 3 * samples[:, 0] + 0.3 * samples[:, -1]
    return samples


def cost_of(calibration: Calibration) -> list[float]:
    """Log loss at each step on sequences that it was not fitted on."""
    unseen = returning(1000, 2)
    final = REMEMBERING.outputs_of(partial_logits(REMEMBERING, unseen)[:, -1])
    return [log_loss(forecasts_of(REMEMBERING, calibration, unseen)[:, t], final) for t in range(T - 1)]


def test_the_state_is_used_where_it_tells_more_than_the_own_number() -> None:
    samples = returning(300, 1)
    names, logits = [str(i) for i in range(300)], partial_logits(REMEMBERING, samples)
    alone = fit_calibration(REMEMBERING, logits, names, "test")[0]
    found, cross_fit = fit_calibration(REMEMBERING, logits, names, "test", states=states_by_step(REMEMBERING, samples))
    assert alone.state_weights is None
    assert found.state_weights is not None
    assert found.state_weights.shape == (T - 1, 2, 1)
    without, with_state = cost_of(alone), cost_of(found)
    assert all(one < other - 0.02 for one, other in zip(with_state[2:], without[2:], strict=True))
    final = REMEMBERING.outputs_of(logits[:, -1])
    unseen = [log_loss(cross_fit.forecasts[:, t], final) for t in range(T - 1)]
    np.testing.assert_allclose(unseen, with_state, atol=0.06)


def test_the_worker_publishes_what_the_calibration_says_of_the_state(
    reference: tuple[StepProgram, Float32Array], tmp_path: Path
) -> None:
    program, samples = reference
    names, logits = [str(i) for i in range(1500)], partial_logits(program, samples)
    fit_calibration(program, logits, names, "test", states=states_by_step(program, samples))[0].save(
        tmp_path / "c.json"
    )
    calibration = load_calibration(tmp_path / "c.json", program, Path("m.keras"))
    assert calibration.state_weights is not None
    stepper = NumpyStepper(program.with_state_weights(calibration.state_weights))
    readout, states = Readout(program, calibration), np.zeros((40, program.state_size), np.float32)
    expected = published_paths(program, logits[:40], forecasts_of(program, calibration, samples[:40]))
    for t in range(logits.shape[1]):
        steps = np.full(40, t + 1, np.int32)
        answers = stepper.step_batch(np.arange(40), samples[:40, t], states, steps)
        np.testing.assert_allclose(readout.publish(answers, steps)[0], expected[:, t], atol=1e-6)


def test_states_that_are_not_finite_or_too_many_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(1).normal(size=(20, T, 1)).astype(np.float32)
    assert all(states is not None for states in states_by_step(PROGRAM, samples))
    samples[3, 4] = np.inf
    assert [states is None for states in states_by_step(PROGRAM, samples)] == [False] * 4 + [True] * 5
    monkeypatch.setattr("worker.model.calibration_fit.STATE_FLOATS_MAX", 0)
    assert all(states is None for states in states_by_step(PROGRAM, samples))


def test_folds_of_classes_are_alike_whatever_is_added_to_all_logits() -> None:
    random = np.random.default_rng(1)
    final = random.normal(size=(40, 2)).astype(np.float32) * 0.1
    final[:10, 1] += 5
    final += random.normal(size=(40, 1)).astype(np.float32) * 10  # a softmax does not see it
    folds = folds_of(final, [str(i) for i in range(40)]).of_sequence
    assert [int((folds[:10] == fold).sum()) for fold in range(5)] == [2] * 5


def test_nothing_is_promised_and_no_state_used_where_recordings_cannot_be_left_out() -> None:
    random = np.random.default_rng(1)
    recordings = [str(i // 5) for i in range(300)] + ["large"] * 480
    states = random.normal(size=(61, 40)).astype(np.float32)[[int(i) if i != "large" else 60 for i in recordings]]
    logits = (0.1 * random.normal(size=(780, T, 1))).astype(np.float32)
    logits[:, -1, 0] = np.where(random.random(61) < 0.5, 6, -6)[[int(i) if i != "large" else 60 for i in recordings]]
    program = SummingProgram(timesteps=T)
    found, cross_fit = fit_calibration(program, logits, recordings, "test", states=iter([states] * (T - 1)))
    assert not cross_fit.by_recording
    assert found.state_weights is None
    assert not found.decided_early.any()


@pytest.mark.parametrize("sequences", [20, 100, 1000])
def test_what_never_happened_among_n_sequences_is_forecast_with_about_one_in_two_n(sequences: int) -> None:
    logits = random_walks(sequences)
    logits[:, -1] = -20
    forecasts = by_logits(fit(logits).table(), "sigmoid", logits)
    np.testing.assert_allclose(forecasts, 0.5 / (sequences + 1), rtol=0.05)
