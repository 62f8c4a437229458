"""The reference model that is kept in the repository, its calibration, and the commands that make them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from worker.cli import calibrate, train
from worker.core.types import Float32Array
from worker.errors import ConfigError
from worker.model.calibration import calibration_for, load_calibration
from worker.model.calibration_fit import partial_logits
from worker.model.datasets import is_positive, of_split, read_csv, sequences_of
from worker.model.load import load_program
from worker.model.readout import Readout
from worker.model.scores import log_loss

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "basic_motions"
DATA, MODEL = EXAMPLE / "basic_motions.csv", EXAMPLE / "badminton.keras"


def run(*arguments: str) -> str:
    """Output of a command; its errors are raised."""
    app = typer.Typer()
    train.register(app)
    calibrate.register(app)
    result = CliRunner().invoke(app, arguments, catch_exceptions=True)
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture(scope="module")
def published() -> tuple[Float32Array, Float32Array, np.ndarray]:
    """Probabilities (40, 100) as published, of the naive partial sum, and labels (40,) of the test recordings."""
    program = load_program(MODEL)
    readout = Readout(program, calibration_for(program, MODEL))
    sequences = sequences_of(of_split(read_csv(DATA), "test"), 100)
    logits = partial_logits(program, sequences.features)
    steps = np.arange(1, 101, dtype=np.int32)
    probabilities = np.stack([readout.publish(row, steps)[0][:, 0] for row in logits])
    return probabilities, 1 / (1 + np.exp(-logits[:, :, 0])), is_positive(sequences.labels, "badminton")


def test_every_test_recording_is_told_right_at_its_last_step(
    published: tuple[Float32Array, Float32Array, np.ndarray],
) -> None:
    probabilities, _, labels = published
    np.testing.assert_array_equal(probabilities[:, -1] > 0.5, labels)


@pytest.mark.parametrize("step", [1, 5, 10, 25, 75])
def test_the_calibrated_number_is_better_than_the_partial_sum_before_the_last_step(
    published: tuple[Float32Array, Float32Array, np.ndarray], step: int
) -> None:
    probabilities, naive, labels = published
    assert log_loss(probabilities[:, step - 1], labels) < log_loss(naive[:, step - 1], labels)


def test_calibrate_writes_a_side_car_for_the_model_and_prints_scores(tmp_path: Path) -> None:
    model = tmp_path / "m.keras"
    shutil.copy(MODEL, model)
    output = run("calibrate", str(model), str(DATA), "--positive", "badminton")
    program = load_program(model)
    calibration = load_calibration(tmp_path / "m.calibration.json", program, model)
    assert calibration.id in output
    assert calibration.sequences == 40
    for expected in ("partial sum", "calibrated", "AUC", "base rate"):
        assert expected in output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--split", "nope"], "no recordings of split 'nope'"),
        (["--features", "x,y"], "2 features, the model takes 3"),
        (["--positive", "tennis"], "'tennis' does not tell"),
        (["--output", "/nowhere/side-car.json"], "cannot be written"),
    ],
)
def test_calibrate_refuses_what_it_cannot_use_in_one_line(arguments: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        run("calibrate", str(MODEL), str(DATA), "--output", "/dev/null", *arguments)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_calibrate_refuses_too_few_recordings(tmp_path: Path) -> None:
    few = tmp_path / "few.csv"
    few.write_text("".join(DATA.read_text().splitlines(keepends=True)[: 1 + 19 * 100]))
    with pytest.raises(ConfigError, match="19 complete sequences are too few"):
        run("calibrate", str(MODEL), str(few), "--split", "train", "--output", str(tmp_path / "side-car.json"))
    assert not (tmp_path / "side-car.json").exists()


@pytest.mark.parametrize(
    ("output", "positive", "complaint"),
    [
        ("m.h5", "badminton", "does not end in .keras"),
        ("absent/m.keras", "badminton", "is no directory"),
        ("m.keras", "1", "does not tell two classes apart"),
    ],
)
def test_train_refuses_before_it_spends_time(tmp_path: Path, output: str, positive: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        run("train", "--data", str(DATA), "--positive", positive, "--output", str(tmp_path / output))
