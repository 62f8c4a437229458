"""Early decisions on whole paths, and thresholds that keep what they promise on sequences not seen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from worker.model.early_decisions import (
    CONFIDENCE,
    ERRORS,
    DecisionCounts,
    counted_decisions,
    decision_scores,
    no_decisions,
    promised_threshold,
    smallest_promise,
)

SURE = 0.95
TRIALS = 200


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


def test_decisions_are_counted_as_multiples_of_those_of_the_recording_with_most():
    paths = np.array([[0.97, 0.1], [0.97, 0.9], [0.97, 0.9], [0.5, 0.5]])[:, :, None]
    found = counted_decisions(paths, np.array([0, 0, 1, 2]))
    at = ERRORS.index(0.05)
    assert (found.recordings[at], found.decided[at], found.taken_back[at]) == (2, 1.5, 0.5)
    assert found.recordings[ERRORS.index(0.02)] == 0


def everywhere(recordings: int, taken_back: float = 0.0) -> DecisionCounts:
    each = np.full(len(ERRORS), recordings)
    return DecisionCounts(each, each.astype(float), np.full(len(ERRORS), taken_back))


def test_a_few_recordings_promise_no_more_than_they_can_show():
    # With none taken back of n, (1 - e) ** n must be at most a third of 1 - CONFIDENCE.
    needed = math.ceil(math.log((1 - CONFIDENCE) / 3) / math.log(1 - 0.05))
    assert promised_threshold(everywhere(needed - 1), 0.05) is None
    assert promised_threshold(everywhere(needed), 0.05) == 0.95
    assert smallest_promise(everywhere(needed)) == 0.05
    assert promised_threshold(no_decisions(), 0.5) is None
    assert smallest_promise(no_decisions()) is None


def test_a_threshold_that_took_back_more_than_promised_gives_way_to_a_higher_one():
    each = np.full(len(ERRORS), 999)
    counts = DecisionCounts(each, each.astype(float), np.where(np.array(ERRORS) > 0.06, 150.0, 0.0))
    assert promised_threshold(counts, 0.1) == 0.95


@pytest.mark.parametrize(("count", "wrong"), [(20, 3), (1000, 20), (50_000, 2_000)])
def test_what_can_be_promised_is_the_upper_bound_of_clopper_and_pearson(count, wrong):
    least = smallest_promise(everywhere(count, wrong))
    chances = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(wrong + 1)]

    def tail(error: float) -> float:
        return math.fsum(
            math.exp(c + k * math.log(error) + (count - k) * math.log1p(-error)) for k, c in enumerate(chances)
        )

    assert least is not None
    assert tail(least) <= (1 - CONFIDENCE) / 3 < tail(least - 0.001)


@pytest.mark.parametrize(("recordings", "windows", "together"), [(500, 1, False), (60, 1, False), (30, 20, True)])
def test_a_promise_that_the_last_step_breaks_is_rarely_made(recordings, windows, together):
    """Decisions of any confidence are taken back in 8 % of sequences, by whole recordings or not; 5 % are promised."""
    generator = np.random.default_rng(recordings)
    made = 0
    for _ in range(TRIALS):
        numbers = np.repeat(np.arange(recordings), windows)
        wrong = generator.random(recordings)[numbers] < 0.08 if together else generator.random(len(numbers)) < 0.08
        surest = 1 - 0.05 * generator.random(len(numbers)).astype(np.float32)
        paths = np.stack([surest, np.where(wrong, 0.1, 0.9)], axis=1)[:, :, None].astype(np.float32)
        made += promised_threshold(counted_decisions(paths, numbers), 0.05) is not None
    assert made <= TRIALS * (1 - CONFIDENCE)


def test_a_promise_that_can_be_kept_is_made():
    generator = np.random.default_rng(1)
    paths = np.full((2000, 5, 1), 0.97, np.float32)
    paths[generator.random(2000) < 0.02, -1] = 0.1
    threshold = promised_threshold(counted_decisions(paths, np.arange(2000)), 0.05)
    assert threshold == 0.95


@pytest.mark.parametrize("share", [0.15, 0.3])
def test_a_promise_is_of_all_decisions_and_not_of_recordings(share):
    """A tenth of the recordings have 30 windows and the others 1; only decisions of the large ones are taken back."""
    generator = np.random.default_rng(1)
    made = 0
    for _ in range(TRIALS):
        sizes = np.where(np.arange(400) % 10 == 0, 30, 1)
        numbers = np.repeat(np.arange(400), sizes)
        back = (generator.random(400) < share)[numbers] & (sizes[numbers] > 1)
        paths = np.stack([np.full(len(numbers), 0.97), np.where(back, 0.1, 0.9)], axis=1)[:, :, None]
        made += promised_threshold(counted_decisions(paths.astype(np.float32), numbers), 0.05) is not None
    assert made <= TRIALS * (1 - CONFIDENCE)
