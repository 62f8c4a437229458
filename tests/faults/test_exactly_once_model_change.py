"""Another model takes over under load: every open sequence is ended once, whatever is killed meanwhile."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from tests.faults.exactly_once import PARTITIONS, Trial
from tests.model_files import FOLDER
from tests.oracle import Oracle
from worker.model.load import load_program

RECORDS = 600
BEFORE = 300
KILLS = 3
BACKLOG = 100
"""Records without an output, about; more are not sent while partitions wait for their worker."""


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
    check_labels(trial)
    record_property(
        "counts", f"{step}: {KILLS} kills, {len(ended)} sequences ended, {expected.total()} outputs checked"
    )


def check_labels(trial: Trial) -> None:
    """What of a closing record is known of a model that is gone: its name."""
    old, new = (load_program(FOLDER / name).fingerprint[:8] for name in ("prefix.keras", "other.keras"))
    began: dict[tuple[int, int], str] = {}
    for record in trial.all_outputs():
        output = json.loads(record.value or b"")
        assert began.setdefault((record.partition, output["first_offset"]), output["model"]) == output["model"]
        if output["ended_by"] == "model_change":
            assert (output["model"], output["length"], output["calibration"]) == (old, None, None)
    assert set(began.values()) == {old, new}


def finishing(model: str, previous: str) -> tuple[str, ...]:
    older = json.dumps([str(FOLDER / previous)])
    settings = (f"model.path={FOLDER / model}", f"model.previous={older}", "model.on_change=finish")
    return tuple(argument for setting in settings for argument in ("--set", setting))


OLD = finishing("prefix.keras", "other.keras")
"""What a rolling update ships first: the old model still begins sequences, the new one's can be finished."""
NEW = finishing("other.keras", "prefix.keras")


def until(trial: Trial, outputs: int) -> None:
    deadline = trial.clock.monotonic() + 120
    while trial.read() < outputs:
        assert trial.clock.monotonic() < deadline, f"{trial.read()} of {outputs} outputs"


@pytest.mark.parametrize("step", ["stepped", "changelog_sent", "committed"])
def test_a_rolling_update_finishes_old_sequences_with_the_old_model(kafka, tmp_path, record_property, step):
    # Its partitions wait for a static member that starts within the session timeout; engines may take 10 s.
    patient = ("kafka.session_timeout_ms=40000", "kafka.transaction_timeout_ms=50000")
    trial = Trial(
        kafka.bootstrap_servers, tmp_path, 12, 1200, interval_ms=30, batch_records=20, streams=40, overrides=patient
    )
    trial.produce(300)
    for name in ("w0", "w1"):
        trial.start(name, *OLD)
    until(trial, 200)
    deadline = trial.clock.monotonic() + 120
    while not all(worker.last_step for worker in trial.workers.values()):
        trial.produce(1)
        trial.read(0.1)
        assert trial.clock.monotonic() < deadline, "one has not joined"
    for name in ("w0", "w1"):
        assert trial.end(name) == 0
        worker = trial.start(name, *NEW, "--kill-at", step, "--times", "1", "--count-max", "1")
        deadline = trial.clock.monotonic() + 120
        while "killed" not in worker.log() or worker.last_step in ("", step):
            if trial.produced - trial.read(0.1) < BACKLOG:
                trial.produce(2)
            assert trial.clock.monotonic() < deadline, "not killed, or not back"
    trial.produce()
    trial.drain(120)
    assert set(trial.stop().values()) == {0}
    found = identities(trial)
    assert found == Counter((r.partition, r.source_offset, r.key, r.closing, r.step) for r in trial.oracle.outputs)
    trial.check_states()
    trial.check_offsets()
    finished = check_models(trial)
    counts = f"{found.total()} outputs checked, {finished} of the old model since the update began"
    record_property("counts", f"rolling update, {step}: 2 kills, {counts}")


def check_models(trial: Trial) -> int:
    """One model a sequence, and its numbers; how many outputs of the old model came once the update had begun."""
    old, new = (load_program(FOLDER / name) for name in ("prefix.keras", "other.keras"))
    programs: dict[str, Any] = {program.fingerprint[:8]: program for program in (old, new)}
    expected = {(r.partition, r.source_offset, r.key, r.closing): r for r in trial.oracle.outputs}
    models: dict[tuple[int, int], set[str]] = defaultdict(set)
    finished = 0
    for record in trial.all_outputs():
        output = json.loads(record.value or b"")
        row = expected[(record.partition, output["source"]["offset"], record.key, output["closing"])]
        models[(record.partition, output["first_offset"])].add(output["model"])
        logit = float(programs[output["model"]].whole(np.array([row.samples]))[0, -1, 0])
        assert abs(output["probability"] - 1 / (1 + np.exp(-logit))) < 1e-6
        begun_before_the_update = output["first_offset"] < 300 // PARTITIONS <= output["source"]["offset"]
        finished += output["model"] == old.fingerprint[:8] and begun_before_the_update
    assert all(len(each) == 1 for each in models.values()), "a sequence of two models"
    assert {name for each in models.values() for name in each} == set(programs)
    assert finished, "says nothing: no sequence was open when the model changed"
    return finished
