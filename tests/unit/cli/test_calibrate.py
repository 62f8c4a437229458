"""`lstm-worker calibrate`: the side-car, the scores and the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "basic_motions"
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
