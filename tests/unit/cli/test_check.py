from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from worker.bench import step_cost
from worker.cli import check
from worker.model.calibration import side_car_path
from worker.model.calibration_fit import fit_calibration, forecasts_of, partial_logits, states_by_step
from worker.model.engines import stepper_for
from worker.model.load import load_program

GOLDENS = Path(__file__).parents[2] / "goldens"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(step_cost, "SECONDS_A_WAVE", 0.0)


def test_check_prints_plan_state_verification_and_step_cost(cli):
    ended = cli("check", str(GOLDENS / "lstm_flatten.keras"), "--no-keras")

    assert ended.code == 0
    assert "lstm_flatten" in ended.out
    assert "6 timesteps of 3 features; output: 1 sigmoid, exact at step 6 only" in ended.out
    assert "state: 15 floats, 60 bytes a stream" in ended.out
    assert "verified: 16 sequences of 6 steps" in ended.out
    assert "µs at 1024" in ended.out


def test_a_file_that_cannot_be_served_is_one_line_and_exit_code_2(cli, tmp_path):
    (tmp_path / "model.keras").write_text("not a model")

    ended = cli("check", str(tmp_path / "model.keras"))

    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "model.keras is neither a .keras zip nor an HDF5 file" in ended.err


def test_outputs_are_what_is_published_after_each_sample_with_nan_before_an_end_only_model_speaks(cli, tmp_path):
    golden = np.load(GOLDENS / "lstm_flatten.npz")
    np.savez(tmp_path / "x.npz", x=golden["inputs"])

    ended = cli(
        *("check", str(GOLDENS / "lstm_flatten.keras"), "--no-keras"),
        *("--inputs", str(tmp_path / "x.npz"), "--outputs", str(tmp_path / "y.npz")),
    )

    assert ended.code == 0
    written = np.load(tmp_path / "y.npz")
    assert written["exact"].tolist() == [False] * 5 + [True]
    assert np.isnan(written["outputs"][:, :-1]).all()
    assert written["outputs"][:, -1] == pytest.approx(golden["outputs"], abs=1e-6)


def test_a_model_that_is_exact_at_every_step_publishes_at_every_step(cli, tmp_path):
    golden = np.load(GOLDENS / "lstm_last_any_length.npz")
    np.savez(tmp_path / "x.npz", x=golden["inputs"])

    cli(
        *("check", str(GOLDENS / "lstm_last_any_length.keras"), "--no-keras"),
        *("--inputs", str(tmp_path / "x.npz"), "--outputs", str(tmp_path / "y.npz")),
    )

    written = np.load(tmp_path / "y.npz")
    assert written["exact"].all()
    assert np.isfinite(written["outputs"]).all()
    assert written["outputs"][:, -1] == pytest.approx(golden["outputs"], abs=1e-6)


def calibrated(folder, name="lstm_dropout"):
    """A copy of a model with numbers of its own at each step, and its calibration beside it."""
    path = Path(shutil.copy(GOLDENS / f"{name}.keras", folder))
    program = load_program(path)
    samples = np.random.default_rng(1).standard_normal((200, program.timesteps, program.features)).astype(np.float32)
    logits, names = partial_logits(program, samples), [str(i) for i in range(200)]
    calibration, _ = fit_calibration(program, logits, names, "test", states=states_by_step(program, samples))
    assert (calibration.state_weights is not None) == (name == "lstm_flatten")
    calibration.save(side_car_path(path))
    return path, calibration, samples


@pytest.mark.parametrize("name", ["lstm_dropout", "lstm_flatten"])
def test_with_a_side_car_outputs_are_its_forecasts_before_the_last_step(cli, tmp_path, name):
    path, calibration, samples = calibrated(tmp_path, name)
    program = load_program(path)
    np.savez(tmp_path / "x.npz", x=samples)

    ended = cli(
        *("check", str(path), "--no-keras"),
        *("--inputs", str(tmp_path / "x.npz"), "--outputs", str(tmp_path / "y.npz")),
    )

    assert f"calibration: {side_car_path(path)}, {calibration.id}" in ended.out
    written = np.load(tmp_path / "y.npz")
    assert written["exact"].tolist() == [False] * 5 + [True]
    logits = partial_logits(program, samples)
    forecasts = forecasts_of(program, calibration, samples)
    np.testing.assert_allclose(written["outputs"][:, :-1], forecasts, atol=1e-5)
    np.testing.assert_allclose(written["outputs"][:, -1], program.outputs_of(logits[:, -1]), atol=1e-6)


def test_a_side_car_is_told_without_inputs_and_another_models_is_refused_as_by_run(cli, tmp_path):
    path, calibration, _ = calibrated(tmp_path)
    assert f"{side_car_path(path)}, {calibration.id}\n" in cli("check", str(path), "--no-keras").out
    shutil.copy(GOLDENS / "simple_rnn.keras", path)

    ended = cli("check", str(path), "--no-keras")

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"{side_car_path(path)} belongs to model" in ended.err


def test_a_side_car_of_a_model_of_any_length_is_used_with_timesteps(cli, tmp_path):
    path = Path(shutil.copy(GOLDENS / "lstm_last_any_length.keras", tmp_path))
    program = load_program(path, timesteps=6)
    samples = np.random.default_rng(1).standard_normal((50, 6, program.features)).astype(np.float32)
    logits, names = partial_logits(program, samples), [str(i) for i in range(50)]
    fit_calibration(program, logits, names, "test")[0].save(side_car_path(path))

    ended = cli("check", str(path), "--no-keras")

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "--timesteps" in ended.err
    assert "calibration: " in cli("check", str(path), "--no-keras", "--timesteps", "6").out


@pytest.mark.parametrize("name", ["lstm_flatten", "lstm_dropout"])
def test_sequences_longer_than_the_models_are_not_what_a_worker_steps(cli, tmp_path, name):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 7, 3)))

    ended = cli(
        *("check", str(GOLDENS / f"{name}.keras"), "--no-keras"),
        *("--inputs", str(tmp_path / "x.npz"), "--outputs", str(tmp_path / "y.npz")),
    )

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "sequences of 7 steps: the model's have 6, or fewer" in ended.err


def test_outputs_never_overwrite_the_inputs(cli, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 6, 3)))
    (tmp_path / "same.npz").symlink_to(tmp_path / "x.npz")

    for other in ("x.npz", "same.npz"):
        ended = cli(
            *("check", str(GOLDENS / "lstm_flatten.keras"), "--no-keras"),
            *("--inputs", str(tmp_path / "x.npz"), "--outputs", str(tmp_path / other)),
        )
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "--outputs" in ended.err
    assert "x" in np.load(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": np.zeros((1, 6, 3))}, "an array x"),
        ({"x": np.zeros((1, 6, 4))}, "(sequences, timesteps, 3)"),
        ({"x": np.zeros((0, 6, 3))}, "x has no sequences"),
        ({"x": np.zeros((1, 0, 3))}, "x has no timesteps"),
        ({"x": np.full((1, 6, 3), np.nan)}, "x[0, 0, 0] is nan"),
    ],
)
def test_inputs_of_another_form_are_refused_in_one_line(cli, tmp_path, arrays, said):
    np.savez(tmp_path / "x.npz", **arrays)

    ended = cli(
        *("check", str(GOLDENS / "lstm_flatten.keras"), "--no-keras"),
        *("--inputs", str(tmp_path / "x.npz"), "--outputs", str(tmp_path / "y.npz")),
    )

    assert ended.code == 2
    assert said in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("name", ["lstm_flatten", "noise_and_identity_any_length"])
def test_timesteps_are_for_files_that_do_not_fix_them(cli, name):
    model = str(GOLDENS / f"{name}.keras")

    assert cli("check", model, "--no-keras", "--timesteps", "6").code == 0
    ended = cli("check", model, "--no-keras", "--timesteps", "5")

    if name == "lstm_flatten":
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert f"--timesteps 5: {model} fixes 6: leave --timesteps out" in ended.err
    else:
        assert "input: 5 timesteps" in ended.out


def test_inputs_without_outputs_are_refused(cli):
    ended = cli("check", str(GOLDENS / "lstm_flatten.keras"), "--inputs", "x.npz")

    assert ended.code == 2
    assert "--outputs" in ended.err


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "repeated_static_input",
            ["input 1, 'age': features 1 to 2, the newest sample's", "input 2, 'signal': features 3 to 4, a sequence"],
        ),
        ("masked_ids", ["input 1, 'ids': features 1 to 1, a sequence of ids from 0 to 5"]),
        ("grids_and_features", ["input 2, 'spectrum': features 4 to 7, a sequence of 4 x 1 numbers in C order"]),
    ],
)
def test_check_says_which_features_are_of_which_input_and_gives_keras_the_same(cli, name, lines):
    ended = cli("check", str(GOLDENS / "graphs" / f"{name}.keras"))

    assert ended.code == 0, ended.err
    assert all(line in ended.out for line in lines), ended.out
    assert "largest difference from Keras 3's model.predict" in ended.out


def test_check_refuses_a_model_that_differs_from_keras(cli, monkeypatch):
    monkeypatch.setattr(
        check,
        "_predicted_by_keras",
        lambda _model, _json, samples, _package: np.full((*samples.shape[:2], 1), 0.5, "f4"),
    )

    ended = cli("check", str(GOLDENS / "lstm_flatten.keras"))

    assert ended.code == 2
    assert "differs from Keras 3" in ended.err


def test_check_says_in_one_line_why_keras_has_no_predictions(cli, monkeypatch):
    monkeypatch.setattr(check.sys, "executable", "/bin/false")

    ended = cli("check", str(GOLDENS / "lstm_flatten.keras"))

    assert ended.code == 0
    assert "not compared with Keras: its process ended with 1" in ended.out


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("ValueError: no\nInputs have the shape (1, 2).", "ValueError: no"),
        ("worker.errors.ModelNotStreamable: m.keras takes 9 features: 4 are allowed", "m.keras takes 9 features: 4"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
        (
            'ValueError: in user code:\n\n    File "m.py", line 1\n        f()\n\n    ValueError: 2 rows',
            "ValueError: 2 rows",
        ),
    ],
)
def test_check_says_with_which_error_keras_ended(cli, monkeypatch, tmp_path, error, told):
    ending = tmp_path / "python"
    traceback = f'Traceback (most recent call last):\n  File "m.py", line 1\n    ~~^^\n{error}'
    ending.write_text(f"#!/bin/sh\ncat >&2 <<'end'\nof a library\n{traceback}\nend\nexit 1\n")
    ending.chmod(0o755)
    monkeypatch.setattr(check.sys, "executable", str(ending))

    ended = cli("check", str(GOLDENS / "lstm_flatten.keras"))

    assert ended.code == 0
    assert f"not compared with Keras: {told}" in ended.out


@pytest.mark.parametrize("name", ["keras224_lstm.h5", "tf_keras221_masked.h5", "tf215_functional.keras"])
def test_a_file_of_keras_2_is_compared_with_keras_2(cli, name):
    ended = cli("check", str(GOLDENS / "generations" / name))

    assert ended.code == 0, ended.err
    assert "largest difference from Keras 2's model.predict" in ended.out


def test_without_keras_2_its_files_are_compared_with_keras_3_or_it_says_what_to_install(cli, monkeypatch):
    monkeypatch.setattr(check, "find_spec", lambda _package: None)
    answers = {"keras222_lstm.h5": "TypeError: pop expected at most 1 argument, got 2"}
    keras = check.version("keras")

    def predicted(model, _json, samples, package):
        assert package == "keras"
        return answers.get(model.name, np.full((*samples.shape[:2], 1), np.nan, np.float32))

    monkeypatch.setattr(check, "_predicted_by_keras", predicted)
    cannot = cli("check", str(GOLDENS / "generations" / "keras222_lstm.h5"))
    differs = cli("check", str(GOLDENS / "generations" / "tf215_lstm.h5"))

    assert (
        f"not compared with Keras: Keras {keras} cannot load the file ({answers['keras222_lstm.h5']}); "
        "pip install tf-keras compares it with Keras 2"
    ) in cannot.out
    assert "differs from Keras 3" in differs.err


def test_a_file_that_keras_2_cannot_predict_is_compared_with_keras_3(cli, monkeypatch):
    found = {"tf_keras": "ValueError: not mine", "keras": "ValueError: nor mine"}
    monkeypatch.setattr(check, "_predicted_by_keras", lambda _model, _json, _samples, package: found[package])
    model = str(GOLDENS / "generations" / "tf215_lstm.h5")

    assert "not compared with Keras: Keras 2: ValueError: not mine\n" in cli("check", model).out
    found["keras"] = np.full((16, 5, 1), np.nan, np.float32)
    assert "differs from Keras 3" in cli("check", model).err


@pytest.mark.parametrize(
    ("name", "generation"),
    [("keras222_gru_alone.h5", 2), ("tf215_gru_alone.weights.h5", 2), ("keras315_gru_alone.weights.h5", 3)],
)
def test_a_file_of_weights_is_compared_with_the_keras_of_its_architecture(cli, tmp_path, name, generation):
    architecture = tmp_path / "elsewhere" / "what-it-is.json"
    architecture.parent.mkdir()
    shutil.copy(GOLDENS / "generations" / f"{name.split('.')[0]}.json", architecture)
    weights = shutil.copy(GOLDENS / "generations" / name, tmp_path)

    ended = cli("check", str(weights), "--architecture", str(architecture))

    assert ended.code == 0, ended.err
    assert f"largest difference from Keras {generation}'s model.predict" in ended.out


@pytest.mark.parametrize(("wrong_at", "code"), [(None, 0), (3, 2)])
def test_of_one_output_per_step_every_step_is_compared_with_keras(cli, monkeypatch, wrong_at, code):
    program = load_program(GOLDENS / "graphs" / "one_per_step.keras")

    def predicted(_model, _json, samples, _package):
        found = check.own_numbers(program, stepper_for(program), samples)[0]
        if wrong_at is not None:
            found[0, wrong_at] += 0.1
        return found

    monkeypatch.setattr(check, "_predicted_by_keras", predicted)
    ended = cli("check", str(GOLDENS / "graphs" / "one_per_step.keras"))

    assert ended.code == code
    assert "model.predict at every step" in ended.out


@pytest.mark.parametrize("wrong_by", [0.0, 1e-3, 1e-2])
def test_a_file_in_half_precision_is_compared_by_the_tolerance_of_that(cli, monkeypatch, wrong_by):
    path = GOLDENS / "precision" / "mixed_float16.keras"
    if wrong_by:
        program = load_program(path)
        monkeypatch.setattr(
            check,
            "_predicted_by_keras",
            lambda _model, _architecture, x, _package: (
                check.own_numbers(program, stepper_for(program), x)[0] + np.float32(wrong_by)
            ),
        )
    ended = cli("check", str(path))

    assert (
        "computed in float32; Keras computes this file in float16: differences of about 1e-3 are expected" in ended.out
    )
    assert ended.code == (2 if wrong_by > 2e-3 else 0), ended.err
    assert ("differs from Keras 3 by 1.0e-02, 2e-03 are allowed" in ended.err) == (wrong_by > 2e-3)
    assert "largest difference from Keras 3's model.predict" in ended.out
