"""What is said of a model when it is loaded."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from worker.config import Settings
from worker.errors import ConfigError, ModelNotStreamable
from worker.model import load
from worker.model.calibration_fit import fit_calibration, partial_logits
from worker.model.early_decisions import ERRORS
from worker.model.kernel.stepper import KernelStepper
from worker.model.load import load_program
from worker.model.numpy_stepper import NumpyStepper
from worker.serving import decide_at, load_model, load_models

TESTS = Path(__file__).parents[1]
GOLDENS = TESTS / "goldens"
ANY, PREFIX, END = (GOLDENS / f"{name}.keras" for name in ("lstm_last_any_length", "lstm_dropout", "lstm_flatten"))
"""Of any length; exact at each of 6 steps; exact at the last of 6 only. All with 3 features and 1 output."""
BUFFERED = TESTS / "models" / "bidirectional.keras"
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
    calibration = fit_calibration(program, partial_logits(program, samples), [str(i) for i in range(50)], "test")[0]
    fifty = np.full(len(ERRORS), 50)
    replace(calibration, decided_early=fifty, decided_share=fifty.astype(float), taken_back=np.zeros(len(ERRORS))).save(
        side_car
    )
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


def older(path, *, length=0, mode="step", previous):
    """Length and fingerprint of each model, when `path` takes over from `previous`."""
    settings = Settings(
        model={"path": str(path), "on_change": "finish", "mode": mode, "previous": previous},
        sequence={"length": length},
    )
    return [(model.length, model.program.fingerprint) for model in load_models(settings)]


def fingerprint(path, length=None):
    return load_program(path, timesteps=length).fingerprint


def test_a_previous_file_that_fixes_its_steps_keeps_them_whatever_the_new_length_is():
    for path in (PREFIX, END):
        assert older(ANY, length=9, previous=[str(path)])[1] == (6, fingerprint(path))
    simple = GOLDENS / "simple_rnn.keras"
    assert older(simple, length=4, previous=[str(PREFIX)]) == [(4, fingerprint(simple)), (6, fingerprint(PREFIX))]
    assert older(ANY, length=9, previous=[{"path": str(PREFIX), "length": 4}])[1] == (4, fingerprint(PREFIX))


def test_a_previous_file_of_any_length_has_the_new_one_or_its_own():
    assert older(PREFIX, length=6, previous=[str(ANY)])[1] == (6, fingerprint(ANY, 6))
    assert older(PREFIX, previous=[str(ANY)])[1] == (0, fingerprint(ANY))
    assert older(PREFIX, previous=[{"path": str(ANY), "length": 9}])[1] == (9, fingerprint(ANY, 9))
    assert older(END, previous=[{"path": str(ANY), "length": 9}])[1] == (9, fingerprint(ANY, 9))
    both = [{"path": str(ANY), "length": 9}, {"path": str(ANY), "length": 0}]
    expected = [(12, fingerprint(ANY, 12)), (9, fingerprint(ANY, 9)), (0, fingerprint(ANY))]
    assert older(ANY, length=12, previous=both) == expected


def test_a_previous_model_has_its_own_calibration(calibrated_prefix):
    def calibrations(**entry):
        previous = [{"path": calibrated_prefix["path"], **entry}]
        settings = Settings(model={"path": str(END), "on_change": "finish", "previous": previous})
        return [model.label.calibration for model in load_models(settings)]

    assert calibrations() == [None, None]
    found = calibrations(calibration=calibrated_prefix["calibration"])
    assert found[0] is None
    assert found[1] == load_model(Settings(model=calibrated_prefix)).label.calibration
    assert found[1] is not None


@pytest.mark.parametrize(
    ("entry", "kind", "said"),
    [
        ("nowhere.keras", ModelNotStreamable, r"^model.previous: nowhere.keras does not exist: name a trained"),
        (
            {"path": str(END), "length": 4},
            ConfigError,
            r"^model.previous: length = 4: .*lstm_flatten.keras has 6 steps and is exact at the last only: leave",
        ),
        ({"path": str(END), "calibration": "none.json"}, ConfigError, r"^model.previous: .*none.json cannot be read"),
        (str(GOLDENS / "graphs" / "two_heads.keras"), ConfigError, r"model.previous: .*two_heads.keras has 3 outputs"),
    ],
)
def test_a_previous_model_that_cannot_be_served_names_its_setting_and_file(entry, kind, said):
    with pytest.raises(kind, match=said):
        older(PREFIX, previous=[entry])


@pytest.mark.parametrize(
    ("path", "length", "said"),
    [
        ("nowhere.keras", 0, r"^model.path: nowhere.keras does not exist: name a trained"),
        (END, 4, r"^sequence.length = 4: .*lstm_flatten.keras has 6 steps.*: leave sequence.length at 0"),
    ],
)
def test_a_served_model_that_cannot_be_names_its_setting_and_file(path, length, said):
    with pytest.raises((ModelNotStreamable, ConfigError), match=said):
        load_model(Settings(model={"path": str(path)}, sequence={"length": length}))


def test_a_previous_model_is_stepped_by_what_can_step_it():
    pytest.importorskip("numba")
    settings = {"path": str(PREFIX), "engine": "kernel", "on_change": "finish", "previous": [str(KERNEL_LACKS)]}
    served, previous = load_models(Settings(model=settings))
    assert isinstance(served.stepper, KernelStepper)
    assert isinstance(previous.stepper, NumpyStepper)


@pytest.mark.parametrize(
    ("entry", "mode"),
    [(str(BUFFERED), "step"), (str(BUFFERED), "buffer"), ({"path": str(BUFFERED), "mode": "buffer"}, "step")],
)
def test_a_previous_model_that_cannot_be_stepped_is_buffered_and_others_are_stepped(monkeypatch, entry, mode):
    # In place of TensorFlow.
    programs = {BUFFERED: load_program(GOLDENS / "simple_rnn.keras"), PREFIX: load_program(PREFIX)}
    monkeypatch.setattr(load, "load_buffered", lambda path, _timesteps: programs[path])
    found = older(PREFIX, mode=mode, previous=[entry, str(END)])
    assert found[1:] == [(6, programs[BUFFERED].fingerprint), (6, fingerprint(END))]


def test_a_previous_model_is_not_buffered_where_it_is_to_be_stepped():
    with pytest.raises(ModelNotStreamable, match=r"^model.previous: .*bidirectional.keras: layer .* cannot be stepped"):
        older(PREFIX, previous=[{"path": str(BUFFERED), "mode": "step"}])
