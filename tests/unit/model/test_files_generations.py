"""Files of every generation, written by that generation (tests/goldens/generations/README.md)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.goldens.table import last_outputs
from worker.model.contract import largest_difference, verify
from worker.model.files.reading import open_model_file
from worker.model.load import load_program

FOLDER = Path(__file__).parents[2] / "goldens" / "generations"
FILES = sorted(path for path in FOLDER.iterdir() if path.suffix in (".h5", ".keras", ".safetensors"))
GENERATIONS = {"keras222", "keras224", "keras231", "tf212", "tf213", "tf215", "tf_keras221", "keras315", "torch"}
FILE_BYTES_MAX = 50_000


def model_of(file: Path) -> str:
    """The model that a file holds: `tf212_gru_alone.weights.h5` → `tf212_gru`."""
    return re.sub(r"_alone|_hdf5_inside", "", file.name.split(".")[0])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_last_step_says_what_the_program_that_wrote_the_file_predicted(file):
    golden = np.load(FOLDER / f"{model_of(file)}.npz")

    assert largest_difference(last_outputs(file, golden["inputs"]), golden["outputs"]) <= 1e-6


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_passes_the_verification_at_load(file):
    verify(load_program(file))


def test_the_same_model_in_several_files_has_one_fingerprint():
    fingerprints: dict[str, set[str]] = {}
    for file in FILES:
        fingerprints.setdefault(model_of(file), set()).add(load_program(file).fingerprint)

    assert {name: len(found) for name, found in fingerprints.items() if len(found) > 1} == {}


def test_no_generation_is_missing_and_every_file_is_small():
    assert {re.match(r"tf_keras\d+|[a-z]+\d*", file.name)[0] for file in FILES} == GENERATIONS
    assert max(file.stat().st_size for file in FILES) < FILE_BYTES_MAX


def test_the_outputs_are_far_from_saturation_so_that_a_wrong_gate_shows():
    for file in FOLDER.glob("*.npz"):
        assert np.ptp(np.load(file)["outputs"], axis=0).max() > 1e-3, file.name


def test_the_old_hard_sigmoid_is_another_function_and_the_goldens_tell_them_apart():
    golden = np.load(FOLDER / "keras224_gru.npz")
    with open_model_file(FOLDER / "keras224_gru.h5") as file:
        assert file.keras_major == 2
        assert "hard_sigmoid" in json.dumps(file.configuration)

    assert np.abs(last_outputs(FOLDER / "keras315_gru.h5", golden["inputs"]) - golden["outputs"]).max() > 1e-3


def test_older_words_reach_the_compiler_as_those_of_keras_3():
    with open_model_file(FOLDER / "keras222_cudnn.h5") as file:
        layers = file.configuration["config"]["layers"]

    assert [entry["class_name"] for entry in layers] == ["LSTM", "GRU", "Dense"]
    assert layers[0]["config"]["recurrent_activation"] == "sigmoid"
    assert layers[0]["config"]["batch_shape"] == [None, 5, 3]
    assert layers[1]["config"]["reset_after"] is True

    with open_model_file(FOLDER / "tf212_lstm.keras") as file:
        slopes = [entry["config"].get("negative_slope") for entry in file.configuration["config"]["layers"]]

    assert [slope for slope in slopes if slope is not None] == [pytest.approx(0.1)]
