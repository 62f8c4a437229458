"""Files that Keras computes in another precision than float32 (make_precision.py)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.goldens.table import largest, last_outputs
from worker.errors import ModelNotStreamable
from worker.model.contract import verify
from worker.model.files.weights import from_bfloat16
from worker.model.load import load_program
from worker.model.precision import TOLERANCES, note, precision_of

FOLDER = Path(__file__).parents[2] / "goldens" / "precision"
FILES = sorted([*FOLDER.glob("*.keras"), *FOLDER.glob("*.h5")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_is_as_near_to_keras_as_the_precision_that_keras_computes_in(file: Path) -> None:
    program = load_program(file)
    golden = np.load(file.with_suffix(".npz"))
    difference = largest(last_outputs(file, golden["inputs"]), golden["outputs"])

    assert program.keras_precision == {"float64": "float32"}.get(file.stem, file.stem.removeprefix("mixed_"))
    verify(program)
    if program.keras_precision == "float32":
        assert difference <= 1e-6
    else:
        assert 1e-5 < difference < TOLERANCES[program.keras_precision] / 2


def configured(*dtypes: Any) -> dict[str, Any]:
    layers = [{"class_name": "LSTM", "config": {"name": str(n), "dtype": dtype}} for n, dtype in enumerate(dtypes)]
    return {"class_name": "Sequential", "config": {"name": "model", "layers": layers}}


def policy(name: str) -> dict[str, Any]:
    return {"module": "keras", "class_name": "DTypePolicy", "config": {"name": name}}


@pytest.mark.parametrize(
    ("dtypes", "precision"),
    [
        (["float32", None, policy("float32")], "float32"),
        (["float64"], "float32"),
        (["float32", "mixed_float16"], "float16"),
        ([policy("mixed_float16"), policy("float32")], "float16"),
        ([{"class_name": "Policy", "config": {"name": "mixed_bfloat16"}}], "bfloat16"),
        (["float16", "bfloat16"], "bfloat16"),
        ([7, {"config": 1}, {"config": {"name": [1]}}], "float32"),
    ],
)
def test_the_coarsest_precision_of_all_layers_counts(dtypes: list[Any], precision: str) -> None:
    assert precision_of(configured(*dtypes)) == precision
    distributed = {"class_name": "TimeDistributed", "config": {"layer": configured(*dtypes)["config"]["layers"][-1]}}
    assert precision_of({"config": [distributed]}) == precision_of(configured(dtypes[-1]))


def test_how_a_model_was_trained_does_not_matter() -> None:
    compiled = {"optimizer": {"class_name": "Adam", "config": {"dtype": "float16"}}}
    assert precision_of({**configured("float32"), "compile_config": compiled}) == "float32"


def test_users_are_told_of_half_precision_only() -> None:
    assert note("float32") == ""
    assert note("bfloat16").startswith("computed in float32; Keras computes this file in bfloat16")


def test_a_bfloat16_is_the_upper_half_of_a_float32() -> None:
    numbers = np.array([1.0, -2.5, 0.0, 3.1415927], np.float32)
    upper = (numbers.view(np.uint32) >> 16).astype("<u2").view("V2")
    np.testing.assert_array_equal(from_bfloat16(upper), np.float32([1.0, -2.5, 0.0, 3.140625]))


def test_other_opaque_bytes_are_no_numbers(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "float16.h5", tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as content:
        found: list[str] = []
        content.visit(found.append)
        name = next(each for each in found if each.endswith("/bias"))
        del content[name]
        content[name] = np.zeros(32, "V2")

    with pytest.raises(ModelNotStreamable, match="are not arrays of numbers"):
        load_program(tmp_path / "model.h5")
