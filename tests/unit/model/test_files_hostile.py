"""What people mistake for a model, and what is made to hurt: one line, little memory and time, nothing executed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.unit.model import hostile_files
from tests.unit.model.hostile_files import ARCHIVES, ARRAYS, CONFIGURATIONS, GOLDENS, KERAS, MISTAKEN
from tests.unit.model.hostile_tensors import TENSORS
from worker.errors import ModelNotStreamable
from worker.model.load import load_program

GENERATIONS = GOLDENS / "generations"
FILES = MISTAKEN | ARCHIVES | CONFIGURATIONS | ARRAYS
KINDS_MIN = 100
PEAK_BYTES_MAX = 48 << 20
"""Of everything that Python allocates for a refusal; the files are below 6 MiB."""
RESIDENT_KIB_MAX = 96 << 10
"""By which a process that refuses all of them grows; HDF5 and zlib allocate what Python does not see."""
SECONDS_MAX = 1.5
"""Of processor time, with memory traced, which is several times as slow."""
LINEAR = '{"layers": [{"module": "Linear", "name": "fc"}]}'
REFUSE_ALL = """
import pathlib, resource, sys
from worker.errors import ModelNotStreamable
from worker.model.load import load_program
load_program(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(pathlib.Path(sys.argv[2]).glob("*/model.*[!n]")):
    try:
        load_program(path)
    except ModelNotStreamable:
        continue
    raise SystemExit(f"{path} was read")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def refusal(path: Path) -> str:
    """The one line, after looking at what it cost."""
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(ModelNotStreamable) as refused:
            load_program(path)
        seconds = time.process_time() - began
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < PEAK_BYTES_MAX
    assert seconds < SECONDS_MAX
    assert "\n" not in str(refused.value)
    assert str(path.parent) in str(refused.value)
    assert refused.value.hint
    return str(refused.value)


@pytest.fixture(scope="module")
def refused_kinds() -> set[str]:
    return set()


@pytest.mark.parametrize("kind", FILES)
def test_a_hostile_file_is_refused_in_one_line_and_within_bounds(kind, tmp_path, monkeypatch, refused_kinds):
    monkeypatch.chdir(tmp_path)
    make, said = FILES[kind]
    path = tmp_path / "model.keras"
    path.write_bytes(make())

    assert said in refusal(path)
    assert not (tmp_path / "executed").exists()
    refused_kinds.add(kind)


@pytest.mark.parametrize("kind", TENSORS)
def test_hostile_tensors_are_refused_in_one_line_and_within_bounds(kind, tmp_path, refused_kinds):
    make, said = TENSORS[kind]
    (tmp_path / "model.safetensors").write_bytes(make())
    (tmp_path / "model.json").write_text(LINEAR)

    assert said in refusal(tmp_path / "model.safetensors")
    refused_kinds.add(kind)


def place(kind: str, folder: Path) -> Path:
    """What is no regular file, as a path."""
    path = folder / "model.keras"
    if kind == "a directory":
        path.mkdir()
    elif kind == "a SavedModel":
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"")
    elif kind == "a SavedModel in text":
        path.mkdir()
        (path / "saved_model.pbtxt").write_bytes(b"")
    elif kind == "the parts of a file":
        path.mkdir()
        for name, content in hostile_files.members_of(KERAS).items():
            (path / name).write_bytes(content)
    elif kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a device without end":
        path.symlink_to("/dev/zero")
    elif kind == "a link to a directory":
        path.symlink_to(folder)
    elif kind == "a link to itself":
        path.symlink_to(path)
    elif kind == "a sparse file of 2 TiB":
        with path.open("wb") as file:
            file.truncate(2 << 40)
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("a directory", "is a directory"),
        ("a SavedModel", "model.save('model.h5')"),
        ("a SavedModel in text", "model.save('model.h5')"),
        ("the parts of a file", "zip them: metadata.json, config.json, model.weights.h5"),
        ("a named pipe", "not a regular file"),
        ("a device without end", "not a regular file"),
        ("a link to a directory", "is a directory"),
        ("a link to itself", "cannot be read"),
        ("a sparse file of 2 TiB", "larger than"),
        ("a file that is not there", "does not exist: name a trained"),
    ],
)
def test_what_is_no_file_is_refused_and_not_waited_for(kind, said, tmp_path, refused_kinds):
    assert said in refusal(place(kind, tmp_path))
    refused_kinds.add(kind)


@pytest.mark.parametrize("kind", ["a directory", "a named pipe", "a device without end", "text", "a list"])
def test_an_architecture_that_is_none_is_refused(kind, tmp_path, refused_kinds):
    weights = tmp_path / "model.weights.h5"
    shutil.copy(next(GENERATIONS.glob("keras315_*_alone.weights.h5")), weights)
    architecture = tmp_path / "model.json"
    if kind in ("text", "a list"):
        architecture.write_text("hello" if kind == "text" else "[]")
    else:
        place(kind, tmp_path).rename(architecture)

    assert "model.json" in refusal(weights)
    refused_kinds.add(f"{kind} for an architecture")


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({}, "no list"),
        ({"layers": []}, "no list"),
        ({"layers": [7]}, "no `module`"),
        ({"layers": [{"module": "LSTM"}]}, "without `name`"),
        ({"layers": [{"module": "Transformer", "name": "x"}]}, "not known"),
        ({"layers": [{"module": "LSTM", "name": "x", "code": "1"}]}, "unknown key"),
        ({"layers": [{"module": "LeakyReLU", "alpha": 0.3}]}, "unknown key 'alpha' in layer 0, a LeakyReLU"),
        ({"layers": [{"module": "ELU", "negative_slope": 0.3}]}, "unknown key 'negative_slope' in layer 0, a ELU"),
        (
            {"layers": [{"module": "LSTM", "name": "x", "nonlinearity": "relu"}]},
            "unknown key 'nonlinearity' in layer 0",
        ),
        ({"layers": [{"module": "Linear", "name": "x", "alpha": 3}]}, "unknown key 'alpha' in layer 0, a Linear"),
        ({"layers": [{"module": "Last"}], "timestep": 7}, "unknown key 'timestep'"),
        ({"layers": [{"module": "Last"}], "batch_first": True}, "unknown key 'batch_first'"),
        ({"layers": [{"module": "Flatten"}, {"module": "Last"}]}, "`Last` in layer 1, where there are no steps"),
        ({"layers": [{"module": "Last"}]}, "before any recurrent"),
        ({"layers": [{"module": "Linear", "name": "nothing"}]}, "does not have"),
    ],
)
def test_a_description_of_torch_modules_that_does_not_fit_is_refused(described, said, tmp_path, refused_kinds):
    shutil.copy(next(GENERATIONS.glob("torch*.safetensors")), tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text(json.dumps(described))

    assert said in refusal(tmp_path / "model.safetensors")
    refused_kinds.add(f"the description {described}")


def test_a_recurrent_module_that_is_given_twice_is_refused(tmp_path):
    shutil.copy(GENERATIONS / "torch_gru.safetensors", tmp_path / "model.safetensors")
    layers = [{"module": "Linear", "name": "embed"}, *[{"module": "GRU", "name": "gru"}] * 2]
    (tmp_path / "model.json").write_text(json.dumps({"layers": layers}))

    assert "names 'gru' twice" in refusal(tmp_path / "model.safetensors")


def test_a_description_of_the_wrong_modules_does_not_send_to_keras(tmp_path):
    shutil.copy(GENERATIONS / "torch_rnn.safetensors", tmp_path / "model.safetensors")
    modules = [{"module": "RNN", "name": "second"}, {"module": "RNN", "name": "first"}, {"module": "Last"}]
    layers = [*modules, {"module": "Linear", "name": "head"}]
    (tmp_path / "model.json").write_text(json.dumps({"layers": layers}))

    said = refusal(tmp_path / "model.safetensors")

    assert "'head' (Dense)" in said
    assert "compare its JSON with the trained module" in said
    assert "keras" not in said.removeprefix(str(tmp_path))


def test_the_architecture_of_weights_may_lie_anywhere(tmp_path):
    weights = next(GENERATIONS.glob("keras315_*_alone.weights.h5"))
    architecture = GENERATIONS / weights.name.replace(".weights.h5", ".json")
    shutil.copy(weights, tmp_path / "weights.h5")
    shutil.copy(architecture, tmp_path / "what-it-is.json")

    assert "no architecture" in refusal(tmp_path / "weights.h5")
    found = load_program(tmp_path / "weights.h5", architecture=tmp_path / "what-it-is.json")
    assert found.fingerprint == load_program(weights).fingerprint


def test_all_of_them_together_leave_the_process_small(tmp_path):
    for number, (make, _) in enumerate(FILES.values()):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "model.keras").write_bytes(make())
    for number, (make, _) in enumerate(TENSORS.values(), len(FILES)):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "model.safetensors").write_bytes(make())
        (tmp_path / str(number) / "model.json").write_text(LINEAR)

    command = [sys.executable, "-c", REFUSE_ALL, str(KERAS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < RESIDENT_KIB_MAX


def test_the_files_that_these_are_made_of_are_read(tmp_path):
    (tmp_path / "model.keras").write_bytes(hostile_files.configured(str))
    (tmp_path / "model.h5").write_bytes(hostile_files.hdf5_with(str))

    fingerprints = {load_program(tmp_path / name).fingerprint for name in ("model.keras", "model.h5")}

    assert fingerprints == {load_program(KERAS).fingerprint}


def test_many_kinds_were_refused(refused_kinds, record_property):
    assert refused_kinds, "run the whole file: the kinds count for this test"
    assert len(refused_kinds) >= KINDS_MIN
    record_property("counts", f"{len(refused_kinds)} kinds of hostile and broken files refused in one line each")
