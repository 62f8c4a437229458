"""When a supervised process is started again."""

from __future__ import annotations

import pytest

from worker.core.restarts import FIRST_SECONDS, HEALTHY_SECONDS, LONGEST_SECONDS, RestartPolicy


def test_pauses_double_up_to_a_longest():
    policy, pauses = RestartPolicy(), []
    for _ in range(8):
        policy.started(0.0)
        due = policy.ended(1, 0.0)
        assert due is not None
        pauses.append(due)
    assert pauses[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert pauses[-1] == LONGEST_SECONDS


def test_a_process_that_ran_for_a_while_begins_with_the_shortest_pause():
    policy = RestartPolicy()
    for _ in range(5):
        policy.started(0.0)
        policy.ended(-9, 0.0)
    policy.started(100.0)
    now = 100.0 + HEALTHY_SECONDS
    assert policy.ended(-9, now) == now + FIRST_SECONDS


@pytest.mark.parametrize("code", [2, 3, 4, 8, 12])
def test_what_a_person_must_mend_is_not_started_again(code):
    assert RestartPolicy().ended(code, 0.0) is None


@pytest.mark.parametrize("code", [-9, -11, 1, 0])
def test_a_crash_is_started_again(code):
    assert RestartPolicy().ended(code, 5.0) == 5.0 + FIRST_SECONDS
