"""Early decisions of the example model on a live stream: one a sequence, at the promised probability."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from tests.e2e.harness import sample

EXAMPLE = Path(__file__).parents[2] / "examples" / "basic_motions"
STREAMS = 6


def test_each_sequence_is_decided_once_at_its_first_sure_step(job):
    recordings: dict[str, list[list[float]]] = defaultdict(list)
    with (EXAMPLE / "basic_motions.csv").open() as file:
        for row in csv.DictReader(file):
            recordings[row["recording"]].append([float(row[axis]) for axis in "xyz"])
    chosen = dict(list(recordings.items())[-STREAMS * 3 :: 3])
    one = job()
    one.sections["model"] = {"path": str(EXAMPLE / "badminton.keras")}
    one.sections["decide"] = {"max_error": 0.1}
    for name, samples in chosen.items():
        one.send([sample(*each) for each in samples], keys=[name.encode()] * len(samples))
    one.start()
    one.wait_processed(100 * STREAMS)
    assert one.stop() == 0
    outputs = defaultdict(list)
    for output in one.published():
        outputs[output["sequence"]].append(output)
    assert len(outputs) == STREAMS
    for sequence in outputs.values():
        sure = [max(each["probability"], 1 - each["probability"]) >= 0.95 for each in sequence]
        decided = [each["decision"] for each in sequence]
        first = sure.index(True)
        assert decided == [None] * first + [int(sequence[first]["probability"] >= 0.5)] + [None] * (99 - first)
        assert decided[first] == int(sequence[-1]["probability"] >= 0.5), "the model's last step agrees"


def test_a_promise_needs_a_calibration(job):
    one = job()
    one.sections["decide"] = {"max_error": 0.1}
    one.start()
    assert one.wait() == 2
    assert "decide.max_error" in one.errors()
