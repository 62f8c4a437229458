"""Early decisions on whole paths, and thresholds that keep what they promise on sequences not seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.model.early_decisions import (
    ERRORS,
    decision_scores,
    decisions_by_error,
    promised_threshold,
    smallest_promise,
)

SURE = 0.95


def test_decisions_come_at_the_first_sure_step_and_count_what_the_last_step_takes_back():
    paths = np.array([[0.5, 0.96, 0.99], [0.97, 0.4, 0.1], [0.3, 0.3, 0.7], [0.02, 0.01, 0.0]])
    found = decision_scores(paths[:, :, None], np.array([1.0, 0.0, 1.0, 0.0])[:, None], SURE)
    assert (found.early, found.mean_step) == (0.75, (2 + 1 + 3 + 1) / 4)
    assert found.taken_back == pytest.approx(1 / 3)
    assert found.right == 0.75


def test_of_classes_the_likeliest_decides_and_steps_without_a_number_do_not():
    nothing, sure, other = [np.nan] * 3, [0.96, 0.03, 0.01], [0.1, 0.8, 0.1]
    paths = np.array([[nothing, sure, other], [nothing, other, other]])
    found = decision_scores(paths, np.eye(3)[[0, 1]], SURE)
    assert (found.early, found.mean_step, found.taken_back, found.right) == (0.5, 2.5, 1.0, 1.0)


def test_a_few_sequences_promise_no_more_than_they_can_show():
    early, back = np.full(len(ERRORS), 40), np.zeros(len(ERRORS), int)
    assert promised_threshold(early, back, 0.01) is None
    assert smallest_promise(early, back) == 0.025
    assert promised_threshold(early, back, 0.025) == 0.975
    nothing = np.zeros(len(ERRORS), int)
    assert promised_threshold(nothing, nothing, 0.5) is None
    assert smallest_promise(nothing, nothing) == 1


def test_a_threshold_that_took_back_more_than_promised_gives_way_to_a_higher_one():
    early, back = np.full(len(ERRORS), 999), np.where(np.array(ERRORS) > 0.02, 150, 0)
    assert promised_threshold(early, back, 0.1) == 0.98


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=58, max_size=58), st.floats(0.001, 0.5))
def test_the_smallest_promise_can_be_kept_and_a_threshold_is_never_below_the_promise(counts, error):
    early = np.array([max(pair) for pair in counts])
    back = np.array([min(pair) for pair in counts])
    least = smallest_promise(early, back)
    if least <= 0.5:
        assert promised_threshold(early, back, least) is not None
    threshold = promised_threshold(early, back, error)
    assert threshold is None or (threshold >= 1 - error - 1e-12 and least <= error + 0.001)


def overconfident(sequences: int, seed: int) -> np.ndarray:
    """Paths (N, 10, 1) that say 99 % from step 3 on and are wrong in every tenth sequence."""
    generator = np.random.default_rng(seed)
    paths = np.full((sequences, 10, 1), 0.5, np.float32)
    paths[:, 2:] = 0.99
    paths[generator.random(sequences) < 0.1, -1] = 0.2
    return paths


def test_a_promise_that_the_probabilities_make_and_the_last_step_breaks_is_not_made():
    early, back = decisions_by_error(overconfident(2000, 1))
    assert promised_threshold(early, back, 0.05) is None
    threshold = promised_threshold(early, back, 0.12)
    assert threshold is not None
    others = overconfident(2000, 2)
    assert decision_scores(others, others[:, -1], threshold).taken_back <= 0.13
