"""What bad input gets: one line that says what to do, no traceback, and nothing lost."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import struct
from pathlib import Path

import jsonschema
import pytest

from tests.e2e.harness import sample
from tests.model_files import FOLDER
from worker.adapters.http_client import metrics_of_running_worker
from worker.adapters.state_directory import StateDirectory
from worker.model.load import load_program

SCHEMA = Path(__file__).parents[2] / "schemas" / "output.schema.json"
GOOD = sample(0.1, 0.2)


def headers_of(record) -> dict[str, bytes]:
    return dict(record.headers)


def one_line(job, *words: str) -> None:
    lines = job.errors().splitlines()
    assert len(lines) == 1, job.errors()
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0], lines[0]


# ---- records


def test_records_that_cannot_be_used_are_dead_letters_and_the_others_are_served(job):
    bad: list[tuple[bytes | None, bytes | None, str]] = [
        (b"s", b"hello", "not_json"),
        (b"s", sample(0.1, 0.2, 0.3), "feature_count"),
        (b"s", b'{"features": [NaN, 1]}', "not_json"),
        (b"s", b'{"features": [1e39, 1]}', "not_finite"),
        (b"s", b'{"features": ["0.1", "0.2"]}', "not_a_number"),
        (b"", GOOD, "key"),
        (None, GOOD, "key"),
        (b"s", b'{"features": [1, 2], "step": 0}', "control"),
    ]
    one = job()
    values = [value for _, value, _ in bad]
    one.send([GOOD, *values, GOOD, *[GOOD] * 20], keys=[b"s", *[key for key, _, _ in bad], *[b"s"] * 21])
    one.start()
    one.wait_processed(len(bad) + 22)
    assert one.stop() == 0, one.errors()
    letters = one.read(one.dead)
    assert [(letter.key, letter.value) for letter in letters] == [(key, value) for key, value, _ in bad]
    reasons = [headers_of(letter)["__lstm_worker.reason"].decode() for letter in letters]
    assert reasons == [reason for _, _, reason in bad]
    assert headers_of(letters[0])["__connect.errors.topic"] == one.input.encode()
    assert [headers_of(letter)["__connect.errors.offset"] for letter in letters] == [
        str(offset).encode() for offset in range(1, len(bad) + 1)
    ]
    outputs = one.published()
    assert [output["step"] for output in outputs] == list(range(1, 23))
    assert [output["tainted"] for output in outputs] == [False, *[True] * 21]


def test_binary_samples_that_are_not_finite_or_too_short_are_dead_letters(job):
    one = job(input={"format": "binary"})
    good = struct.pack("<2f", 1, 2)
    one.send([good, struct.pack("<2f", float("nan"), 1), struct.pack("<2f", float("inf"), 1), good[:7], good, good])
    one.start()
    one.wait_processed(6)
    assert one.stop() == 0
    reasons = [headers_of(letter)["__lstm_worker.reason"] for letter in one.read(one.dead)]
    assert reasons == [b"not_finite", b"not_finite", b"length"]
    assert [output["step"] for output in one.published()] == [1, 2, 3]


@pytest.mark.parametrize("megabytes", [4, 10])
def test_a_large_value_is_cut_to_fit_and_can_be_told_from_its_hash(job, request, megabytes):
    # The embedded broker keeps 5 MB a partition, so 10 MB need a real one.
    one = (
        job() if megabytes < 5 else job(kafka={"bootstrap_servers": request.getfixturevalue("kafka").bootstrap_servers})
    )
    large = b'{"features": [' + b"1," * (megabytes * 500_000) + b"1]}"
    one.send([GOOD, GOOD, large, GOOD])
    one.start()
    one.wait_processed(4)
    assert one.stop() == 0, one.errors()
    (letter,) = one.read(one.dead)
    found = headers_of(letter)
    assert found["__lstm_worker.reason"] == b"too_large"
    assert found["__lstm_worker.value.size"] == str(len(large)).encode()
    assert found["__lstm_worker.value.sha256"] == hashlib.sha256(large).hexdigest().encode()
    assert letter.value is not None
    assert large.startswith(letter.value)
    assert [output["step"] for output in one.published()] == [1, 2, 3]


def test_when_most_records_are_unusable_the_worker_stops_before_it_drains_the_topic(job):
    one = job()
    one.send([b"not json"] * 400)
    one.start()
    assert one.wait() == 5
    one_line(one, "unusable", "not_json", "input.format")
    assert one.read(one.dead) == []
    one.start()
    assert one.wait() == 5, "the same records are read again: no offset was committed"
    one.sections["worker"] = {"bad_records_max_share": 1.0}
    one.start()
    one.wait_until(lambda: one.status() is not None)
    metrics = metrics_of_running_worker("127.0.0.1", one.port)
    assert 'previous_exit_timestamp_seconds{exit_code="5",reason="too_many_bad_records"}' in metrics


# ---- settings and files


def test_an_unknown_setting_names_the_nearest_known_one(job):
    one = job(worker={"commit_intervall_ms": 5})
    one.start()
    assert one.wait() == 2
    one_line(one, "worker.commit_intervall_ms", "worker.commit_interval_ms")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("model.keras", "model.path")),
        (b"PK\x03\x04 cut off", ("model.keras", "model.save")),
        (b"just text", ("model.keras", "model.save")),
        (b"", ("model.keras", "empty")),
    ],
    ids=["missing", "truncated", "text", "empty"],
)
def test_a_model_file_that_cannot_be_read_is_refused(job, tmp_path, content, words):
    path = tmp_path / "model.keras"
    if content is not None:
        path.write_bytes(content)
    one = job(model={"path": str(path)})
    one.start()
    assert one.wait() == 2
    one_line(one, *words)


def test_a_layer_that_cannot_be_stepped_is_named(job, tmp_path):
    path = unsupported(tmp_path)
    one = job(model={"path": str(path)})
    one.start()
    assert one.wait() == 2
    one_line(one, "Bidirectional", "backward")


def unsupported(folder):
    """The small model with its first layer's class replaced by one that needs the whole sequence."""
    import zipfile

    path = folder / "bidirectional.keras"
    with zipfile.ZipFile(FOLDER / "prefix.keras") as old, zipfile.ZipFile(path, "w") as new:
        for member in old.namelist():
            content = old.read(member)
            if member == "config.json":
                configuration = json.loads(content)
                configuration["config"]["layers"][1]["class_name"] = "Bidirectional"
                content = json.dumps(configuration).encode()
            new.writestr(member, content)
    return path


def test_a_broker_that_does_not_answer_is_named(job):
    one = job(kafka={"bootstrap_servers": "127.0.0.1:1"})
    one.start()
    assert one.wait() == 2
    one_line(one, "127.0.0.1:1", "kafka.bootstrap_servers")


def test_a_missing_topic_is_named(job):
    one = job(topics={"output": "nowhere"})
    one.start()
    assert one.wait() == 2
    one_line(one, "nowhere", "lstm-worker topics")


def test_a_state_directory_in_use_is_refused(job):
    one = job()
    with StateDirectory.open(one.folder / "state"):
        one.start()
        assert one.wait() == 7
    one_line(one, "in use", "state.directory")


def test_an_http_port_in_use_is_refused(job):
    first, second = job(), job()
    first.start()
    first.wait_until(lambda: first.status() is not None)
    second.port = first.port
    second.start()
    assert second.wait() == 2
    one_line(second, str(first.port), "http.port")
    assert first.stop() == 0


# ---- state of another model


def test_state_of_another_model_is_refused_or_its_sequences_are_ended(job, tmp_path):
    one = job(sequence={"length": 5})
    one.send([GOOD, GOOD], keys=[b"a", b"b"])
    one.start()
    one.wait_processed(2)
    assert one.stop(signal.SIGTERM) == 0
    other = tmp_path / "other.keras"
    shutil.copy(FOLDER / "other.keras", other)
    one.sections["model"] = {"path": str(other)}
    one.sections["decide"] = {"threshold": 0.9}
    one.start()
    assert one.wait() == 2
    one_line(one, "model", "--on-model-change reset")
    assert len(one.published()) == 2
    one.send([GOOD], keys=[b"a"])
    one.start("--on-model-change", "reset")
    one.wait_processed(1)
    assert one.stop() == 0, one.errors()
    outputs = [(record.key, json.loads(record.value)) for record in one.read()]
    closings = [(key, output) for key, output in outputs if output["closing"]]
    assert sorted(key for key, _ in closings) == [b"a", b"b"]
    assert {(output["ended_by"], output["final"], output["step"]) for _, output in closings} == {
        ("model_change", True, 1)
    }
    assert {output["decision"] for _, output in closings} == {None}
    old = load_program(FOLDER / "prefix.keras", timesteps=5).fingerprint[:8]
    told = {(output["model"], output["length"], output["calibration"]) for _, output in closings}
    assert told == {(old, None, None)}, "the old model's numbers, under its name"
    assert (outputs[-1][1]["model"] == old, outputs[-1][1]["length"]) == (False, 5)
    for _, output in closings:
        jsonschema.validate(output, json.loads(SCHEMA.read_text()))
    assert outputs[-1][1]["step"] == 1, "the new model starts a sequence of its own"
