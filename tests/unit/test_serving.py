"""What is said of a model when it is loaded."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from worker.config import Settings
from worker.errors import ConfigError
from worker.model.calibration_fit import fit_calibration, partial_logits
from worker.model.early_decisions import ERRORS
from worker.model.load import load_program
from worker.serving import decide_at, load_model

TESTS = Path(__file__).parents[1]
KERNEL_LACKS = TESTS / "goldens" / "graphs" / "branches_of_one_length.keras"
REFERENCE = TESTS.parent / "examples" / "basic_motions" / "badminton.keras"


@pytest.mark.parametrize(
    ("path", "engine", "said"),
    [(KERNEL_LACKS, "auto", True), (KERNEL_LACKS, "numpy", False), (REFERENCE, "auto", False)],
)
def test_a_model_that_auto_cannot_step_by_the_kernel_is_told_with_the_reason(path, engine, said, caplog):
    with caplog.at_level(logging.INFO):
        load_model(Settings(model={"path": str(path), "engine": engine}))
    notices = [record.getMessage() for record in caplog.records if "not by the kernel" in record.getMessage()]
    assert bool(notices) == said
    assert all("without branches" in notice for notice in notices)


@pytest.mark.parametrize(("name", "warned"), [("mixed_bfloat16", True), ("float64", False)])
def test_a_model_that_keras_computes_in_half_precision_is_served_with_a_warning(name, warned, caplog):
    load_model(Settings(model={"path": str(TESTS / "goldens" / "precision" / f"{name}.keras")}))

    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("Keras computes this file in bfloat16" in each for each in warnings) == warned


@pytest.fixture
def calibrated_prefix(tmp_path):
    """Settings of a model that has numbers of its own at each of its 6 steps, and of its calibration."""
    path, side_car = TESTS / "goldens" / "lstm_dropout.keras", tmp_path / "calibration.json"
    program = load_program(path)
    samples = np.random.default_rng(1).standard_normal((50, 6, 3)).astype(np.float32)
    calibration = fit_calibration(program, partial_logits(program, samples), "test")
    none_taken_back = {"decided_early": np.full(len(ERRORS), 50), "taken_back": np.zeros(len(ERRORS))}
    replace(calibration, **none_taken_back).save(side_car)
    return {"path": str(path), "calibration": str(side_car)}


def test_early_decisions_of_a_model_with_numbers_of_its_own_are_promised_by_a_calibration_only(calibrated_prefix):
    decide = {"max_error": 0.1}
    settings = Settings(model=calibrated_prefix, decide=decide)
    assert decide_at(settings, [load_model(settings)]) == (0.9,)
    settings = Settings(model=calibrated_prefix, decide={"max_error": 0.01})
    with pytest.raises(ConfigError, match=r"calibration \(test\) cannot promise less than 0\.066: calibrate"):
        decide_at(settings, [load_model(settings)])
    settings = Settings(model={"path": calibrated_prefix["path"]}, decide=decide)
    with pytest.raises(ConfigError, match=r"no calibration.*set decide.threshold"):
        decide_at(settings, [load_model(settings)])


def test_a_calibration_forecasts_one_step_and_no_other_length_is_served_with_it(calibrated_prefix):
    with pytest.raises(ConfigError, match=r"sequence.length = 5: the calibration of .* forecasts step 6"):
        load_model(Settings(model=calibrated_prefix, sequence={"length": 5}))


def test_a_previous_model_that_can_promise_nothing_decides_at_its_last_step_only(calibrated_prefix):
    settings = Settings(model=calibrated_prefix, decide={"max_error": 0.1})
    previous = load_model(Settings(model={"path": str(TESTS / "goldens" / "simple_rnn.keras")}))
    assert decide_at(settings, [load_model(settings), previous]) == (0.9, math.inf)


def test_models_that_calibrate_refuses_are_not_sent_there():
    settings = Settings(
        model={"path": str(TESTS / "goldens" / "graphs" / "one_per_step.keras")}, decide={"max_error": 0.1}
    )
    with pytest.raises(ConfigError, match=r"set decide.threshold") as refused:
        decide_at(settings, [load_model(settings)])
    assert "lstm-worker calibrate" not in str(refused.value)
