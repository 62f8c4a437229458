"""Scores of early probabilities: what they are, and how sure they are."""

from __future__ import annotations

import numpy as np
import pytest

from worker.model.calibration_scores import (
    drift,
    platt_forecasts,
    scores_by_step,
)
from worker.model.scores import log_loss

ONE = np.zeros(4000, np.int64)


def test_platt_undoes_a_scale_and_a_shift_of_the_own_predictors():
    generator = np.random.default_rng(2)
    truth = generator.standard_normal(4000) * 1.5
    labels = generator.random(4000) < 1 / (1 + np.exp(-truth))
    predictors = (3 * truth + 2)[:, None, None]
    found = platt_forecasts(predictors, labels[:, None], np.arange(4000) % 5, [1], classes=False)[:, 0, 0]
    assert np.abs(found - 1 / (1 + np.exp(-truth))).mean() < 0.02


def test_platt_of_classes_undoes_a_temperature():
    generator = np.random.default_rng(2)
    logits = generator.standard_normal((4000, 3)) * 1.5
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.eye(3, dtype=bool)[[generator.choice(3, p=row) for row in truth]]
    sure = 4 * logits - np.log(np.exp(4 * logits).sum(axis=1, keepdims=True))
    found = platt_forecasts(sure[:, None], labels, np.arange(4000) % 5, [1], classes=True)[:, 0]
    assert np.abs(found - truth).mean() < 0.04
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_platt_has_nothing_at_steps_that_are_not_asked_for_and_does_not_see_its_own_label():
    generator = np.random.default_rng(3)
    predictors = generator.standard_normal((60, 2, 1))
    labels, folds = generator.random((60, 1)) < 0.5, np.arange(60) // 3 % 5
    before = platt_forecasts(predictors, labels, folds, [2], classes=False)
    assert np.isnan(before[:, 0]).all()
    other = labels.copy()
    other[folds == 0] = ~other[folds == 0]
    after = platt_forecasts(predictors, other, folds, [2], classes=False)
    assert np.array_equal(after[folds == 0], before[folds == 0], equal_nan=True)
    assert not np.array_equal(after[folds == 1], before[folds == 1], equal_nan=True)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_platt_is_never_much_worse_than_the_base_rate(scale):
    generator = np.random.default_rng(4)
    predictors = (generator.standard_t(1.2, (400, 1, 1)) * scale).clip(-1e5, 1e5)
    labels = generator.random((400, 1)) < 0.1
    found = platt_forecasts(predictors, labels, np.arange(400) % 5, [1], classes=False)[:, 0, 0]
    assert log_loss(found, labels[:, 0]) < log_loss(np.full(400, labels.mean()), labels[:, 0]) + 0.05


def test_intervals_hold_the_score_and_widen_when_recordings_are_few():
    generator = np.random.default_rng(4)
    # Forty sequences of a recording are alike: ten recordings are ten pieces of evidence.
    of_recording = np.linspace(0.15, 0.85, 10)
    y = np.repeat(generator.random((10, 1)) < of_recording[:, None], 40, axis=0).astype(np.float64)
    p = (np.repeat(of_recording[:, None], 40, axis=0) + 0.05 * generator.standard_normal((400, 1)))[:, None]
    many = scores_by_step({"calibrated": p}, y, [str(i) for i in range(400)], ONE[:400], [1], labelled=True)[0]
    few = scores_by_step({"calibrated": p}, y, [str(i // 40) for i in range(400)], ONE[:400], [1], labelled=True)[0]
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
    (score,) = scores_by_step({"calibrated": p}, p[:, 1], ["one"] * 30, ONE[:30], [1], labelled=False)
    assert score.log_loss.interval is None
    assert score.log_loss.value > 0


def test_without_labels_there_is_no_area_under_a_curve():
    p = np.random.default_rng(5).random((30, 2, 1))
    scores = scores_by_step({"calibrated": p}, p[:, 1], [str(i) for i in range(30)], ONE[:30], [1, 2], labelled=False)
    assert [score.auc for score in scores] == [None, None]


def test_drift_is_that_of_the_paths():
    paths = np.array([[0.2, 0.3, 0.4], [0.8, 0.9, 1.0]])
    mean, slope = drift(paths)
    assert mean == pytest.approx(0.1)
    assert slope == pytest.approx(0.0, abs=1e-12)


def test_alike_forecasts_have_no_slope_but_for_rounding():
    assert drift(np.full((50, 4), 0.3) + np.random.default_rng(1).normal(0, 1e-9, (50, 4)))[1] == 0


def test_forecasts_of_two_folds_are_not_ranked_against_each_other():
    generator = np.random.default_rng(1)
    folds = np.arange(400) % 5
    labels = (generator.random((400, 1)) < 0.3).astype(float)
    base = np.array([labels[folds != fold].mean() for fold in range(5)])
    p = base[folds][:, None, None]  # knows nothing; its base rate without the fold is against the fold's
    (score,) = scores_by_step({"calibrated": p}, labels, [str(i) for i in range(400)], folds, [1], labelled=True)
    assert score.auc is not None
    assert score.auc.value == 0.5


def test_the_interval_of_a_calibration_error_holds_it():
    generator = np.random.default_rng(1)
    p = generator.random((300, 1, 1))
    y = (generator.random((300, 1)) < p[:, 0]).astype(float)
    (score,) = scores_by_step({"calibrated": p}, y, [str(i) for i in range(300)], ONE[:300], [1], labelled=False)
    assert score.calibration_error.interval is not None
    low, high = score.calibration_error.interval
    assert low < score.calibration_error.value < high
