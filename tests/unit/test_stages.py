"""The stages of the loop's second add up, and a commit's time on disk is told from its time on the network."""

from __future__ import annotations

from worker.metrics import PREFIX, STAGES, Metrics
from worker.stages import Stages


class Steps:
    """A clock that moves on by one second at each reading."""

    def __init__(self) -> None:
        self.now = 0.0

    def now_ms(self) -> int:
        return 0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


def seconds(metrics: Metrics) -> dict[str, float]:
    found = {
        stage: metrics.registry.get_sample_value(PREFIX + "stage_seconds_total", {"stage": stage}) for stage in STAGES
    }
    return {stage: each for stage, each in found.items() if each}


def test_a_commit_is_split_at_the_decision_and_everything_adds_up():
    metrics, clock, seen = Metrics(version="1", model="m"), Steps(), []
    stages = Stages(clock, metrics)
    hook = stages.within_commits(seen.append)
    stages.mark("poll")
    steps = ["dead_letters_sent", "changelog_sent", "flushed", "offsets_sent", "committed", "stored", "stored", "done"]
    for step in steps:
        hook(step)
    stages.mark("commit")
    assert seen == steps, "whoever else listens is told of every step"
    assert seconds(metrics) == {"poll": 1, "commit": 3, "store": 2}
    assert sum(seconds(metrics).values()) == clock.now - 1
