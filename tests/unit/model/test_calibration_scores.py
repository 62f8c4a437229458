"""Scores of early probabilities: what they are, and how sure they are."""

from __future__ import annotations

import numpy as np
import pytest

from worker.model.calibration_scores import (
    drift,
    platt_forecasts,
    scores_by_step,
)


def test_platt_undoes_a_scale_and_a_shift_of_the_log_odds():
    generator = np.random.default_rng(2)
    truth = generator.standard_normal(4000) * 1.5
    labels = generator.random(4000) < 1 / (1 + np.exp(-truth))
    odds = (3 * truth[:, None] + 2).astype(np.float32)
    found = platt_forecasts(odds, labels, [str(i) for i in range(4000)])[:, 0]
    assert np.abs(found - 1 / (1 + np.exp(-truth))).mean() < 0.02


def test_a_label_that_the_forecast_has_not_seen_does_not_move_it():
    generator = np.random.default_rng(3)
    odds = generator.standard_normal((60, 2)).astype(np.float32)
    labels = generator.random(60) < 0.5
    groups = [str(i // 3) for i in range(60)]
    before = platt_forecasts(odds, labels, groups)
    other = labels.copy()
    other[:3] = ~other[:3]
    assert np.array_equal(platt_forecasts(odds, other, groups)[:3], before[:3])


def test_intervals_hold_the_score_and_widen_when_recordings_are_few():
    generator = np.random.default_rng(4)
    # Forty sequences of a recording are alike: ten recordings are ten pieces of evidence.
    of_recording = np.linspace(0.15, 0.85, 10)
    y = np.repeat(generator.random((10, 1)) < of_recording[:, None], 40, axis=0).astype(np.float64)
    p = (np.repeat(of_recording[:, None], 40, axis=0) + 0.05 * generator.standard_normal((400, 1)))[:, None]
    many = scores_by_step({"calibrated": p}, y, [str(i) for i in range(400)], [1], labelled=True)[0]
    few = scores_by_step({"calibrated": p}, y, [str(i // 40) for i in range(400)], [1], labelled=True)[0]
    assert many.auc is not None
    assert few.auc is not None
    for score in (many.log_loss, many.auc, many.calibration_error):
        assert score.interval is not None
        assert score.interval[0] < score.interval[1]
    low, high = many.log_loss.interval
    assert low < many.log_loss.value < high
    assert few.log_loss.interval[1] - few.log_loss.interval[0] > 1.5 * (high - low)
    assert 0.5 < many.auc.value < 1


def test_sequences_of_one_recording_have_scores_without_intervals():
    p = np.random.default_rng(5).random((30, 2, 1))
    (score,) = scores_by_step({"calibrated": p}, p[:, 1], ["one"] * 30, [1], labelled=False)
    assert score.log_loss.interval is None
    assert score.log_loss.value > 0


def test_without_labels_there_is_no_area_under_a_curve():
    p = np.random.default_rng(5).random((30, 2, 1))
    scores = scores_by_step({"calibrated": p}, p[:, 1], [str(i) for i in range(30)], [1, 2], labelled=False)
    assert [score.auc for score in scores] == [None, None]


def test_drift_is_that_of_the_paths():
    paths = np.array([[0.2, 0.3, 0.4], [0.8, 0.9, 1.0]])
    mean, slope = drift(paths)
    assert mean == pytest.approx(0.1)
    assert slope == pytest.approx(0.0, abs=1e-12)
