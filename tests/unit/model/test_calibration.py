"""What a calibration promises: the two numbers a step, what few or empty data get, and its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.model.programs import SummingProgram
from worker.core.types import Float32Array
from worker.errors import ConfigError
from worker.model.calibration import (
    calibration_for,
    check_replaceable,
    forecast,
    forecasts_of,
    load_calibration,
    log_odds,
    side_car_path,
)
from worker.model.calibration_fit import (
    check_calibratable,
    cross_fitted,
    fit_calibration,
    folds_of,
    partial_logits,
)
from worker.model.early_decisions import ERRORS
from worker.model.scores import log_loss

T = 10
PROGRAM = SummingProgram(timesteps=T)


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
    calibration = fit_calibration(PROGRAM, logits, "test")
    np.testing.assert_allclose(calibration.intercepts[:, 0], intercept, atol=0.12)
    np.testing.assert_allclose(calibration.slopes[:, 0], slope, atol=0.12)


def test_the_forecast_of_independent_parts_is_the_expected_last_number() -> None:
    logits = random_walks(4000, seed=2)
    table = fit_calibration(PROGRAM, logits, "test").table()
    forecasts = forecasts_of(table, "sigmoid", logits)[:, :, 0].astype(np.float64)
    final = sigmoid(logits[:, -1, 0].astype(np.float64))
    np.testing.assert_allclose(forecasts.mean(axis=0), final.mean(), atol=0.005)
    for step in (2, 5, 9):
        high = logits[:, step - 1, 0] > 1
        assert abs(forecasts[high, step - 1].mean() - final[high].mean()) < 0.02


@pytest.mark.parametrize("seed", range(5))
def test_twenty_sequences_of_pure_noise_get_about_the_base_rate(seed: int) -> None:
    calibration = fit_calibration(PROGRAM, unrelated_logits(20, seed), "test")
    unseen = unrelated_logits(200, seed + 100)
    forecasts = forecasts_of(calibration.table(), calibration.activation, unseen)
    assert abs(forecasts.mean() - 0.25) < 0.04
    assert np.abs(forecasts - 0.25).mean() < 0.06
    assert forecasts.max() < 0.75


def test_early_steps_that_separate_few_sequences_perfectly_do_not_become_certain() -> None:
    side = np.where(np.arange(20) % 2 == 0, 1, -1)
    logits = np.random.default_rng(0).normal(side[:, None, None], 0.35, (20, T, 1)).astype(np.float32)
    logits[:, -1, 0] = side * 9
    assert (np.sign(logits[:, 0, 0]) == side).all()
    centres = np.array([[-1.0], [1.0]], np.float32)
    table = fit_calibration(PROGRAM, logits, "test").table()
    low, high = forecast(table, "sigmoid", centres, np.array([1, 1], np.int32))[:, 0]
    assert 0.01 < low < 0.1
    assert 0.9 < high < 0.99


def test_logits_outside_the_seen_range_are_not_extrapolated() -> None:
    logits = random_walks(100, seed=3)
    table = fit_calibration(PROGRAM, logits, "test").table()
    steps = np.array([1, 1], np.int32)
    top = logits[:, 0].max()
    seen, beyond = forecast(table, "sigmoid", np.array([[top], [top + 50]], np.float32), steps)
    np.testing.assert_array_equal(seen, beyond)


def test_constant_early_logits_get_the_base_rate_whatever_comes_later() -> None:
    logits = random_walks(50, seed=4)
    logits[:, 0] = 0.25
    calibration = fit_calibration(PROGRAM, logits, "test")
    first = forecast(calibration.table(), "sigmoid", np.array([[0.25], [9]], np.float32), np.array([1, 1], np.int32))
    np.testing.assert_allclose(first, sigmoid(logits[:, -1]).mean(), atol=0.05)


@given(seed=st.integers(0, 10_000), scale=st.floats(1e-6, 1e3), outputs=st.sampled_from([1, 3]))
@settings(deadline=None, max_examples=40)
def test_any_scale_of_logits_gives_finite_numbers_and_the_same_numbers_again(
    seed: int, scale: float, outputs: int
) -> None:
    program = SummingProgram(timesteps=T, outputs=outputs, activation="softmax" if outputs > 1 else "sigmoid")
    logits = random_walks(25, seed, outputs) * np.float32(scale)
    calibration = fit_calibration(program, logits, "test")
    assert np.isfinite(calibration.table()).all()
    assert fit_calibration(program, logits, "test").id == calibration.id
    forecasts = forecasts_of(calibration.table(), calibration.activation, logits)
    assert ((forecasts >= 0) & (forecasts <= 1)).all()
    if outputs > 1:
        np.testing.assert_allclose(forecasts.sum(axis=2), 1, atol=1e-6)


def test_softmax_classes_are_forecast_better_than_by_the_partial_sum() -> None:
    program = SummingProgram(timesteps=T, outputs=3, activation="softmax")
    logits = random_walks(400, seed=5, outputs=3)
    logits[:, :, 0] += np.linspace(3, 0, T, dtype=np.float32)  # early sums favour class 0 wrongly
    forecasts = cross_fitted(logits, "softmax", [str(i) for i in range(400)]).forecasts
    final = program.outputs_of(logits[:, -1])
    for step in (1, 4, 8):
        assert log_loss(forecasts[:, step - 1], final) < log_loss(program.outputs_of(logits[:, step - 1]), final)


def test_log_odds_of_a_softmax_are_those_of_its_probabilities() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 4)) * 3
    probabilities = SummingProgram(outputs=4, activation="softmax").outputs_of(logits)
    np.testing.assert_allclose(log_odds(logits, "softmax"), np.log(probabilities / (1 - probabilities)), atol=1e-9)
    dominated = np.array([[60, 1, 0]], np.float32)
    np.testing.assert_allclose(log_odds(dominated, "softmax")[0, 0], 60 - np.log(np.e + 1), rtol=1e-6)


@given(st.integers(0, 100), st.sampled_from([1, 3]), st.integers(1, 3))
def test_log_odds_leave_the_logits_as_they_are(seed: int, outputs: int, count: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(count, outputs)).astype(np.float32)
    before = logits.copy()
    whole = log_odds(logits, "softmax" if outputs > 1 else "sigmoid")
    np.testing.assert_array_equal(logits, before)
    each = [log_odds(logits[i : i + 1], "softmax" if outputs > 1 else "sigmoid")[0] for i in range(count)]
    np.testing.assert_array_equal(whole, each)


def test_fewer_than_twenty_sequences_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"19 complete sequences are too few.*at least 20"):
        fit_calibration(PROGRAM, random_walks(19), "test")


def test_logits_that_are_not_finite_are_refused() -> None:
    logits = random_walks(20)
    logits[3, 4] = np.nan
    with pytest.raises(ConfigError, match="not finite"):
        fit_calibration(PROGRAM, logits, "test")


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


@pytest.mark.parametrize("sizes", [[30, 1], [18, 2], [17, 3], [40]])
def test_a_recording_too_large_to_leave_out_is_left_out_sequence_by_sequence_and_finite(sizes: list[int]) -> None:
    recordings = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    found = cross_fitted(random_walks(len(recordings)), "sigmoid", recordings)
    assert not found.by_recording
    assert np.isfinite(found.forecasts).all()
    assert np.bincount(found.recordings).tolist() == sizes


def test_cross_fitted_forecasts_do_not_depend_on_the_forecast_sequence_itself() -> None:
    logits = random_walks(40, seed=6)
    names = [str(i) for i in range(40)]
    before = cross_fitted(logits, "sigmoid", names).forecasts
    own = int(np.argmax(logits[:, -1, 0]))
    changed = logits.copy()
    changed[own, -1] += 30  # still the highest, so the folds stay
    after = cross_fitted(changed, "sigmoid", names).forecasts
    np.testing.assert_array_equal(after[own], before[own])
    assert (after != before).any()


def test_partial_logits_are_the_programs_step_by_step() -> None:
    features = np.random.default_rng(0).normal(size=(1030, T, 1)).astype(np.float32)
    done: list[int] = []
    logits = partial_logits(PROGRAM, features, done.append)
    np.testing.assert_allclose(logits, np.cumsum(features, axis=1), atol=1e-5)
    assert sum(done) == 1030 * T


def test_a_side_car_reads_back_as_it_was_written(tmp_path: Path) -> None:
    calibration = fit_calibration(PROGRAM, random_walks(30), "thirty walks")
    path = side_car_path(tmp_path / "m.keras")
    calibration.save(path)
    assert path.name == "m.calibration.json"
    read = load_calibration(path, PROGRAM, tmp_path / "m.keras")
    assert read.id == calibration.id
    assert (read.method, read.sequences) == ("thirty walks", 30)
    np.testing.assert_array_equal(read.table(), calibration.table())


def test_the_id_names_the_content_and_not_the_layout_of_the_file(tmp_path: Path) -> None:
    calibration = fit_calibration(PROGRAM, random_walks(30), "test")
    path = tmp_path / "side-car.json"
    calibration.save(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(sorted(content.items()))))
    assert load_calibration(path, PROGRAM, Path("m.keras")).id == calibration.id
    content["slopes"][0][0] += 1
    path.write_text(json.dumps(content))
    assert load_calibration(path, PROGRAM, Path("m.keras")).id != calibration.id


def test_another_models_side_car_is_refused_with_both_fingerprints_and_the_command(tmp_path: Path) -> None:
    path = tmp_path / "side-car.json"
    fit_calibration(PROGRAM, random_walks(30), "test").save(path)
    other = SummingProgram(timesteps=T, fingerprint="b" * 64)
    with pytest.raises(ConfigError) as refused:
        load_calibration(path, other, Path("m.keras"))
    for part in ("a" * 64, "b" * 64, "lstm-worker calibrate m.keras"):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "\xff",
        "[" * 100_000,
        '{"format": 1}',
        '{"format": 2}',
        '{"format": 2, "surprise": 3}',
    ],
)
def test_a_file_that_is_no_side_car_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "side-car.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match="is not a calibration") as refused:
        load_calibration(path, PROGRAM, Path("m.keras"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slopes", [[1.0]]),
        ("slopes", [[float("nan")]] * (T - 1)),
        ("slopes", "many"),
        ("intercepts", [[1.0], [1.0, 2.0]]),
        ("timesteps", 0),
        ("timesteps", 10.0),
        ("sequences", True),
        ("method", None),
        ("decided_early", [1, 2]),
        ("decided_early", [0.5] * len(ERRORS)),
        ("taken_back", [-1] * len(ERRORS)),
        ("taken_back", [31.0] * len(ERRORS)),
        ("taken_back", 3),
    ],
)
def test_a_side_car_with_a_field_that_cannot_be_is_refused(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "side-car.json"
    fit_calibration(PROGRAM, random_walks(30), "test").save(path)
    content = json.loads(path.read_text())
    content[name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=name):
        load_calibration(path, PROGRAM, Path("m.keras"))


def test_the_side_car_beside_the_model_is_found_and_a_configured_one_must_exist(tmp_path: Path) -> None:
    model = tmp_path / "m.keras"
    assert calibration_for(PROGRAM, model) is None
    calibration = fit_calibration(PROGRAM, random_walks(30), "test")
    calibration.save(side_car_path(model))
    found = calibration_for(PROGRAM, model)
    assert found is not None
    assert found.id == calibration.id
    with pytest.raises(ConfigError, match="cannot be read"):
        calibration_for(PROGRAM, model, str(tmp_path / "absent.json"))


def test_a_model_of_any_length_is_told_the_length_that_its_calibration_is_for(tmp_path: Path) -> None:
    model = tmp_path / "m.keras"
    fit_calibration(PROGRAM, random_walks(30), "test").save(side_car_path(model))
    with pytest.raises(ConfigError, match=r"forecasts step 10 of .* any length: set sequence\.length = 10"):
        calibration_for(SummingProgram(timesteps=None, exactness="prefix", fingerprint="c" * 64), model)


def test_without_a_cross_fit_no_early_decision_is_promised() -> None:
    logits = random_walks(200)
    assert not fit_calibration(PROGRAM, logits, "test").decided_early.any()
    found = fit_calibration(PROGRAM, logits, "test", cross_fitted(logits, "sigmoid", [str(i) for i in range(200)]))
    assert found.decided_early.any()
    assert (found.taken_back <= found.decided_early).all()


def test_a_model_with_defined_prefixes_is_forecast_with_less_surprise_than_by_its_own_early_numbers() -> None:
    program = SummingProgram(timesteps=T, exactness="prefix")
    logits = random_walks(2000)
    logits[:, :-1] *= 4  # far too sure before the last step, which alone was trained
    calibration = fit_calibration(program, logits[:1000], "test")
    forecasts, final = forecasts_of(calibration.table(), "sigmoid", logits[1000:])[:, :, 0], logits[1000:, -1, 0]
    for step in range(1, T):
        own = sigmoid(logits[1000:, step - 1, 0])
        assert log_loss(forecasts[:, step - 1], sigmoid(final)) < log_loss(own, sigmoid(final))


def test_steps_before_the_first_full_window_get_the_base_rate_whatever_their_logits_are() -> None:
    program = SummingProgram(timesteps=T, exactness="prefix", exact_from=4, computed_from=4)
    samples = np.random.default_rng(1).normal(size=(200, T, 1)).astype(np.float32)
    logits = partial_logits(program, samples)
    assert (logits[:, :3] == 0).all()
    assert (logits[:, 3:] != 0).all()
    calibration = fit_calibration(program, logits, "test")
    np.testing.assert_allclose(calibration.slopes[:3], 0)


def test_a_side_car_is_not_taken_from_another_model_of_the_same_name_and_other_suffix(tmp_path: Path) -> None:
    model, other = tmp_path / "m.keras", tmp_path / "m.h5"
    path = side_car_path(model)
    assert path == side_car_path(other)
    model.touch()
    fit_calibration(PROGRAM, random_walks(30), "test").save(path)
    retrained = SummingProgram(timesteps=T, fingerprint="b" * 64)
    check_replaceable(path, retrained, model)
    other.touch()
    check_replaceable(path, PROGRAM, model)
    with pytest.raises(ConfigError, match=r"is the calibration of .*m.keras: name another --output"):
        check_replaceable(path, retrained, other)
