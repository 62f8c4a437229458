"""Members that end are started again; the whole ends together."""

from __future__ import annotations

import signal
from itertools import pairwise

from worker.supervisor import Member, Supervisor


class Clock:
    """Time that passes only when somebody pauses."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds

    def pause(self, seconds: float) -> None:
        self.seconds += seconds


class Process:
    """Ends with `code` after `lasts` seconds, or with `asked` once it was asked to."""

    def __init__(self, clock: Clock, lasts: float, code: int, asked: int = 0) -> None:
        self._clock, self._ends, self._code, self._asked = clock, clock.seconds + lasts, code, asked

    def poll(self) -> int | None:
        return self._code if self._clock.seconds >= self._ends else None

    def terminate(self) -> None:
        self._ends, self._code = self._clock.seconds, self._asked


def run(
    lives: dict[int, list[tuple[float, int]]], stop_at: float, asked: int = 0
) -> tuple[int, dict[int, list[float]]]:
    """Lives (seconds, exit code) of each member; the exit code of all and when each life began."""
    clock = Clock()
    begun: dict[int, list[float]] = {number: [] for number in lives}

    def start(number: int) -> Process:
        begun[number].append(round(clock.seconds))
        return Process(clock, *lives[number][len(begun[number]) - 1], asked=asked)

    members = [Member(number, lambda number=number: start(number)) for number in lives]

    def pause(seconds: float) -> None:
        clock.pause(seconds)
        if clock.seconds >= stop_at:
            supervisor.stop()

    supervisor = Supervisor(members, clock, pause)
    return supervisor.run(), begun


def test_a_member_that_crashes_is_started_again_and_the_other_runs_on():
    code, begun = run({0: [(1000, 0)], 1: [(10, -9), (1000, 0)]}, stop_at=100)
    assert (code, begun) == (0, {0: [0], 1: [0, 11]})


def test_a_member_that_crashes_at_once_again_and_again_is_started_less_and_less_often():
    _, begun = run({0: [(0.1, 1)] * 20}, stop_at=100)
    pauses = [later - earlier for earlier, later in pairwise(begun[0])]
    # As the policy says, and up to a second for seeing that it ended.
    for pause, policy in zip(pauses, [1, 2, 4, 8, 16, 30, 30], strict=False):
        assert policy <= pause <= policy + 1
    assert len(pauses) == 7


def test_a_mistake_that_a_person_must_mend_ends_all_members_with_its_code():
    code, begun = run({0: [(1000, 0)], 1: [(10, 4)]}, stop_at=1e9)
    assert (code, begun) == (4, {0: [0], 1: [0]})


def test_a_stop_asks_every_member_and_starts_none_again():
    code, begun = run({0: [(1000, 0)], 1: [(49.9, 1), (1000, 0)]}, stop_at=50)
    assert code in (0, 1)
    assert begun == {0: [0], 1: [0]}


def test_a_member_that_was_asked_to_leave_while_it_started_ended_well():
    code, _ = run({0: [(1000, 0)]}, stop_at=100, asked=-signal.SIGTERM)
    assert code == 0
