"""Another model takes over under load: every open sequence is ended once, whatever is killed meanwhile."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.faults.exactly_once import Trial
from tests.model_files import FOLDER
from tests.oracle import Oracle

RECORDS = 600
BEFORE = 300
KILLS = 3


def identities(trial: Trial) -> Counter[tuple[int, int, bytes, bool, int]]:
    found: Counter[tuple[int, int, bytes, bool, int]] = Counter()
    for record in trial.all_outputs():
        output = json.loads(record.value or b"")
        source = output["source"]
        found[(record.partition, source["offset"], record.key or b"", output["closing"], output["step"])] += 1
    return found


@pytest.mark.parametrize("step", ["produced", "changelog_sent", "committed"])
def test_sequences_of_the_old_model_are_ended_once_and_the_new_one_begins_anew(kafka, tmp_path, record_property, step):
    trial = Trial(kafka.bootstrap_servers, tmp_path, 11, RECORDS, interval_ms=50, batch_records=20)

    oracle = Oracle().feed(trial.given[:BEFORE])
    trial.produce(BEFORE)
    trial.start("w0")
    deadline = trial.clock.monotonic() + 90
    while trial.read() < len(oracle.outputs) and trial.clock.monotonic() < deadline:
        pass
    assert set(trial.stop().values()) == {0}
    ended = dict(oracle.open)
    oracle.open.clear()
    oracle.feed(trial.given[BEFORE:])
    expected = Counter((row.partition, row.source_offset, row.key, row.closing, row.step) for row in oracle.outputs)
    for (partition, key), sequence in ended.items():
        last = max(
            given.offset
            for given in trial.given[:BEFORE]
            if (given.partition, given.key) == (partition, key) and given.features is not None
        )
        expected[(partition, last, key, True, len(sequence.samples))] += 1
    trial.produce()
    other = ("--set", f"model.path={FOLDER / 'other.keras'}", "--set", "model.on_change=reset")
    trial.start("w0", *other, "--kill-at", step, "--times", str(KILLS), "--count-max", "2")
    deadline = trial.clock.monotonic() + 120
    while trial.read() < expected.total() and trial.clock.monotonic() < deadline:
        pass
    assert set(trial.stop().values()) == {0}, trial.workers["w0"].log()
    found = identities(trial)
    assert found == expected, (found - expected, expected - found)
    record_property(
        "counts", f"{step}: {KILLS} kills, {len(ended)} sequences ended, {expected.total()} outputs checked"
    )
