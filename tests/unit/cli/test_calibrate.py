"""`lstm-worker calibrate`: the side-car, the scores and the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "basic_motions"
GOLDENS = Path(__file__).parents[2] / "goldens"
MODEL, DATA = str(EXAMPLE / "badminton.keras"), EXAMPLE / "basic_motions.csv"


def test_with_labels_all_three_forecasts_are_scored_with_intervals(cli, tmp_path):
    ended = cli(
        "calibrate", MODEL, str(DATA), "--split", "test", "--positive", "badminton", "--output", str(tmp_path / "c")
    )
    assert ended.code == 0, ended.err
    assert "40 sequences of 40 recordings" in ended.out
    for forecast in ("partial sum", "calibrated", "Platt"):
        assert ended.out.count(forecast) == 7
    assert "decide.max_error = 0.05" in ended.out
    assert json.loads((tmp_path / "c").read_text())["sequences"] == 40


def test_an_npz_file_needs_no_labels(cli, tmp_path):
    samples = np.random.default_rng(1).standard_normal((30, 100, 3)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=samples)
    ended = cli("calibrate", MODEL, str(tmp_path / "data.npz"), "--output", str(tmp_path / "c"))
    assert ended.code == 0, ended.err
    assert "against the model at step 100" in ended.out
    assert "Platt" not in ended.out


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"y": np.zeros(3)}, "is not an npz file with an array x"),
        ({"x": np.zeros((30, 100))}, r"x (30, 100)"),
        ({"x": np.full((30, 100, 3), np.nan)}, "give finite"),
        ({"x": np.zeros((30, 100, 3)), "y": np.zeros(29)}, "29 labels"),
        ({"x": np.zeros((5, 100, 3))}, "too few"),
    ],
)
def test_data_that_cannot_be_used_are_refused_in_one_line(cli, tmp_path, arrays, reason):
    np.savez(tmp_path / "data.npz", **arrays)
    ended = cli("calibrate", MODEL, str(tmp_path / "data.npz"), "--output", str(tmp_path / "c"))
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert reason in ended.err


def test_the_report_is_a_table_and_pictures(cli, tmp_path):
    options = ["--split", "test", "--positive", "badminton", "--output", str(tmp_path / "c")]
    ended = cli("calibrate", MODEL, str(DATA), *options, "--report", str(tmp_path / "report"))
    assert ended.code == 0, ended.err
    text = (tmp_path / "report" / "calibration.md").read_text()
    assert text.count("\n| ") == 1 + 7 * 3
    assert (tmp_path / "report" / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "report" / "calibration.svg").read_text()


def data_of(path, timesteps, features=3, sequences=60, **arrays):
    samples = np.random.default_rng(1).standard_normal((sequences, timesteps, features)).astype(np.float32)
    np.savez(path, x=samples, **arrays)
    return str(path)


def test_a_model_with_numbers_of_its_own_is_told_how_they_compare_and_what_run_will_publish(cli, tmp_path):
    model, side_car = str(GOLDENS / "lstm_dropout.keras"), tmp_path / "c.json"
    ended = cli("calibrate", model, data_of(tmp_path / "d.npz", 6), "--output", str(side_car))
    assert ended.code == 0, ended.err
    assert "own number" in ended.out
    assert "partial sum" not in ended.out
    assert "in place of the model's own numbers, with exact = false" in ended.out
    assert side_car.exists()


def test_scores_alone_leave_no_side_car(cli, tmp_path):
    model, side_car = str(GOLDENS / "lstm_dropout.keras"), tmp_path / "c.json"
    ended = cli("calibrate", model, data_of(tmp_path / "d.npz", 6), "--output", str(side_car), "--no-save")
    assert ended.code == 0, ended.err
    assert not side_car.exists()
    assert "written to" not in ended.out


def test_steps_before_the_first_full_window_are_not_scored_and_a_length_can_be_given(cli, tmp_path):
    model, data = str(GOLDENS / "graphs" / "strided_windows.keras"), data_of(tmp_path / "d.npz", 9)
    ended = cli("calibrate", model, data, "--no-save")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "give theirs by --timesteps" in ended.err
    ended = cli("calibrate", model, data, "--no-save", "--timesteps", "9", "--report", str(tmp_path))
    assert ended.code == 0, ended.err
    steps = [line.split(" | ")[0] for line in (tmp_path / "calibration.md").read_text().splitlines()[6:]]
    assert [step for step in steps if step == "| 3"] == ["| 3"] * 2
    assert "| 2" not in steps


def test_classes_are_scored_together_against_the_last_step_or_against_labels(cli, tmp_path):
    model = str(GOLDENS / "gru_flatten_softmax.keras")
    data = data_of(tmp_path / "d.npz", 6, y=np.array(["run", "walk", "sit"] * 20))
    ended = cli("calibrate", model, data, "--no-save", "--report", str(tmp_path / "report"))
    assert ended.code == 0, ended.err
    assert "against the model at step 6" in ended.out
    assert "the likeliest class" in (tmp_path / "report" / "calibration.md").read_text()
    assert "decide.max_error" in ended.out
    ended = cli("calibrate", model, data, "--no-save", "--classes", "run,walk,sit")
    assert ended.code == 0, ended.err
    assert "against labels" in ended.out
    assert "mean AUC" in ended.out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--positive", "run"], "this has 3: name the labels of its outputs by --classes"),
        (["--classes", "run,walk"], "--classes names 2, the model ends in softmax of 3"),
        (["--classes", "run,run,walk"], "--classes names 2, the model ends in softmax of 3"),
        (["--classes", "run,walk,lie"], "label 'sit' is none of the classes run, walk, lie"),
        (["--split", "test"], "no recordings of split 'test'"),
        (["--features", "x,y,z"], "has no columns that --features or --label could name"),
        (["--timesteps", "5"], "fixes 6: leave --timesteps out"),
    ],
)
def test_labels_and_splits_that_do_not_fit_are_refused(cli, tmp_path, options, reason):
    data = data_of(tmp_path / "d.npz", 6, y=np.array(["run", "walk", "sit"] * 20))
    ended = cli("calibrate", str(GOLDENS / "gru_flatten_softmax.keras"), data, "--no-save", *options)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert reason in ended.err


def test_several_outputs_that_are_no_classes_have_mean_scores_and_no_decisions(cli, tmp_path):
    model = str(GOLDENS / "graphs" / "two_heads.keras")
    ended = cli("calibrate", model, data_of(tmp_path / "d.npz", 7), "--no-save", "--timesteps", "7")
    assert ended.code == 0, ended.err
    assert "decide.max_error" not in ended.out


@pytest.mark.parametrize("options", [["--positive", "1"], ["--classes", "0,1"], ["--positive", "1", "--classes", "1"]])
def test_several_outputs_that_are_no_classes_are_not_scored_on_labels(cli, tmp_path, options):
    model = str(GOLDENS / "graphs" / "two_heads.keras")
    data = data_of(tmp_path / "d.npz", 7, y=np.arange(60) % 2)
    ended = cli("calibrate", model, data, "--no-save", "--timesteps", "7", *options)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "outputs that are not classes cannot be scored on labels: leave --positive and --classes out" in ended.err


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        ("lstm_dropout", ["--positive", "1", "--classes", "0,1"], "has 1: leave --classes out"),
        ("lstm_dropout", ["--classes", "0,1"], "sigmoid of 1: name the label of 1 by --positive"),
        ("lstm_dropout", ["--positive", "1"], "20 of 60 sequences have no label, the first is number 3"),
        ("gru_flatten_softmax", ["--classes", "0,1,2"], "20 of 60 sequences have no label, the first is number 3"),
    ],
)
def test_labels_that_are_missing_or_do_not_fit_are_refused_with_the_way_out(cli, tmp_path, model, options, reason):
    data = data_of(tmp_path / "d.npz", 6, y=np.array([0, 1, np.nan] * 20))
    ended = cli("calibrate", str(GOLDENS / f"{model}.keras"), data, "--no-save", *options)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert reason in ended.err


def test_one_recording_is_refused_however_many_windows_it_has(cli, tmp_path):
    rows = np.random.default_rng(1).standard_normal((30 * 6, 3))
    lines = ["recording,x,y,z", *(f"only,{x},{y},{z}" for x, y, z in rows)]
    (tmp_path / "d.csv").write_text("\n".join(lines))
    ended = cli("calibrate", str(GOLDENS / "lstm_dropout.keras"), str(tmp_path / "d.csv"), "--no-save")
    assert ended.code == 2
    assert "sequences of 1 recording(s) are too few" in ended.err
    assert "give at least 5 recordings" in ended.err
