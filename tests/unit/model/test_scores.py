"""Scores of probabilities by hand, and that counting a sequence twice is having it twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.model.scores import (
    area_under_curve_score,
    calibration_error_score,
    counted_once,
    log_loss,
    log_loss_score,
)


def area_under_curve(p, y):
    return counted_once(area_under_curve_score(np.array(p, float)[:, None], np.array(y, float)[:, None]), len(p))


def expected_calibration_error(p, y):
    return counted_once(calibration_error_score(np.asarray(p, float)[:, None], np.asarray(y, float)[:, None]), len(p))


def test_log_loss_is_the_mean_surprise_and_finite_for_a_certain_mistake():
    assert log_loss([0.5, 0.5], [0, 1]) == pytest.approx(np.log(2))
    assert log_loss([0.9, 0.2], [1, 0]) == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2)
    assert log_loss([0.25], [0.25]) == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)))
    assert log_loss([0.0], [1]) == pytest.approx(16.1, abs=0.1)
    with pytest.raises(ValueError, match="differ in shape"):
        log_loss([0.5], [1, 0])


def test_of_classes_the_surprise_is_that_of_the_right_one():
    p, y = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]), np.array([[1.0, 0, 0], [0, 1.0, 0]])
    assert counted_once(log_loss_score(p, y, classes=True), 2) == pytest.approx(-(np.log(0.7) + np.log(0.1)) / 2)


def test_area_under_curve_counts_ordered_pairs():
    assert area_under_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75
    assert area_under_curve([1, 1, 1], [0, 1, 1]) == 0.5
    assert np.isnan(area_under_curve([1, 2], [1, 1]))


def test_a_class_that_does_not_occur_is_left_out_of_the_mean_area():
    p = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    y = np.array([[1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0]])
    assert counted_once(area_under_curve_score(p, y), 3) == 1


def test_a_forecast_that_comes_true_as_often_as_it_says_has_no_calibration_error():
    p = np.repeat([0.1, 0.3, 0.7, 0.9], 1000)
    y = np.concatenate([np.arange(1000) < share * 1000 for share in (0.1, 0.3, 0.7, 0.9)]).astype(float)
    shuffled = np.concatenate([np.random.default_rng(1).permutation(part) for part in np.split(y, 4)])
    assert expected_calibration_error(p, shuffled) < 0.03
    assert expected_calibration_error(np.full(4000, 0.9), shuffled) == pytest.approx(0.4, abs=0.01)


@given(st.integers(0, 1000))
def test_the_calibration_error_does_not_depend_on_the_order_of_equal_forecasts(seed):
    generator = np.random.default_rng(seed)
    p, y = generator.integers(1, 4, 60) / 5, (generator.random(60) < 0.4).astype(float)
    order = np.argsort(y)
    assert expected_calibration_error(p[order], y[order]) == pytest.approx(expected_calibration_error(p, y))
    constant = np.full(60, 0.4)
    assert expected_calibration_error(constant, np.sort(y)) == pytest.approx(abs(0.4 - y.mean()))


def test_only_pairs_of_one_fold_are_ranked():
    p, y, folds = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.0, 1.0, 0.0, 1.0]), np.array([0, 0, 1, 1])
    assert area_under_curve(p, y) == 0.75
    assert counted_once(area_under_curve_score(p[:, None], y[:, None], folds), 4) == 1.0


def test_of_classes_the_calibration_error_is_that_of_the_likeliest():
    p = np.tile([0.8, 0.15, 0.05], (1000, 1))
    y = np.eye(3)[np.where(np.arange(1000) % 2 == 0, 0, 1)]
    assert counted_once(calibration_error_score(p, y, classes=True), 1000) == pytest.approx(0.3)


@given(st.integers(0, 1000), st.booleans())
def test_a_sequence_that_counts_twice_is_as_if_it_were_there_twice(seed, classes):
    generator = np.random.default_rng(seed)
    p = generator.dirichlet(np.ones(3), 40)
    y = np.eye(3)[generator.integers(0, 3, 40)]
    times = generator.integers(0, 3, 40)
    times[0] = 1
    rows = np.repeat(np.arange(40), times)
    for of in (
        lambda p, y: log_loss_score(p, y, classes=classes),
        lambda p, y: calibration_error_score(p, y, classes=classes),
        area_under_curve_score,
    ):
        assert of(p, y)(times) == pytest.approx(counted_once(of(p[rows], y[rows]), len(rows)), nan_ok=True)
