"""A calibration's file: what is read back, refused and overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.model.programs import SummingProgram
from worker.core.types import Float32Array
from worker.errors import ConfigError
from worker.model.calibration import (
    Calibration,
    calibration_for,
    check_replaceable,
    load_calibration,
    side_car_path,
)
from worker.model.calibration_fit import fit_calibration
from worker.model.early_decisions import ERRORS

T = 10
PROGRAM = SummingProgram(timesteps=T)


def random_walks(sequences: int) -> Float32Array:
    """Logits (N, T, 1) of sequences whose parts are independent."""
    parts = np.random.default_rng(0).normal(size=(sequences, T, 1))
    return np.cumsum(parts, axis=1).astype(np.float32)


def fit(logits: Float32Array, method: str = "test") -> Calibration:
    return fit_calibration(PROGRAM, logits, [str(i) for i in range(len(logits))], method)[0]


def test_a_side_car_reads_back_as_it_was_written(tmp_path: Path) -> None:
    calibration = fit(random_walks(30), "thirty walks")
    path = side_car_path(tmp_path / "m.keras")
    calibration.save(path)
    assert path.name == "m.calibration.json"
    read = load_calibration(path, PROGRAM, tmp_path / "m.keras")
    assert read.id == calibration.id
    assert (read.method, read.sequences) == ("thirty walks", 30)
    for ours, theirs in zip(read.table(), calibration.table(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_id_names_the_content_and_not_the_layout_of_the_file(tmp_path: Path) -> None:
    calibration = fit(random_walks(30))
    path = tmp_path / "side-car.json"
    calibration.save(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(sorted(content.items()))))
    assert load_calibration(path, PROGRAM, Path("m.keras")).id == calibration.id
    content["slopes"][0][0][0] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="changed after it was made"):
        load_calibration(path, PROGRAM, Path("m.keras"))


def test_another_models_side_car_is_refused_with_both_fingerprints_and_the_command(tmp_path: Path) -> None:
    path = tmp_path / "side-car.json"
    fit(random_walks(30)).save(path)
    other = SummingProgram(timesteps=T, fingerprint="b" * 64)
    with pytest.raises(ConfigError) as refused:
        load_calibration(path, other, Path("m.keras"))
    for part in ("a" * 64, "b" * 64, "lstm-worker calibrate m.keras"):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "\xff",
        "[" * 100_000,
        '{"format": 1}',
        '{"format": 3}',
        '{"format": 3, "surprise": 3}',
    ],
)
def test_a_file_that_is_no_side_car_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "side-car.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match="is not a calibration") as refused:
        load_calibration(path, PROGRAM, Path("m.keras"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slopes", [[[1.0]]]),
        ("slopes", [[[float("nan")]]] * (T - 1)),
        ("slopes", [[[1e300]]] * (T - 1)),
        ("state_slopes", [[[1.0, 2.0]]] * (T - 1)),
        ("lowest", [[1e30]] * (T - 1)),
        ("drift", [0.0]),
        ("slopes", "many"),
        ("intercepts", [[1.0], [1.0, 2.0]]),
        ("timesteps", 0),
        ("timesteps", 10.0),
        ("sequences", True),
        ("method", None),
        ("decided_early", [1, 2]),
        ("decided_early", ["1"] * len(ERRORS)),
        ("decided_early", [0.5] * len(ERRORS)),
        ("decided_early", [1e18] * len(ERRORS)),
        ("taken_back", [-1] * len(ERRORS)),
        ("taken_back", [31.0] * len(ERRORS)),
        ("taken_back", 3),
    ],
)
def test_a_side_car_with_a_field_that_cannot_be_is_refused(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "side-car.json"
    fit(random_walks(30)).save(path)
    content = json.loads(path.read_text())
    content[name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=name):
        load_calibration(path, PROGRAM, Path("m.keras"))


def test_the_side_car_beside_the_model_is_found_and_a_configured_one_must_exist(tmp_path: Path) -> None:
    model = tmp_path / "m.keras"
    assert calibration_for(PROGRAM, model) is None
    calibration = fit(random_walks(30))
    calibration.save(side_car_path(model))
    found = calibration_for(PROGRAM, model)
    assert found is not None
    assert found.id == calibration.id
    with pytest.raises(ConfigError, match="cannot be read"):
        calibration_for(PROGRAM, model, str(tmp_path / "absent.json"))


def test_a_model_of_any_length_is_told_the_length_that_its_calibration_is_for(tmp_path: Path) -> None:
    model = tmp_path / "m.keras"
    fit(random_walks(30)).save(side_car_path(model))
    with pytest.raises(ConfigError, match=r"forecasts step 10 of .* any length: set sequence\.length = 10"):
        calibration_for(SummingProgram(timesteps=None, exactness="prefix", fingerprint="c" * 64), model)


def test_a_side_car_is_not_taken_from_another_model_of_the_same_name_and_other_suffix(tmp_path: Path) -> None:
    model, other = tmp_path / "m.keras", tmp_path / "m.h5"
    path = side_car_path(model)
    assert path == side_car_path(other)
    model.touch()
    fit(random_walks(30)).save(path)
    retrained = SummingProgram(timesteps=T, fingerprint="b" * 64)
    check_replaceable(path, retrained, model, named=False)
    other.touch()
    check_replaceable(path, PROGRAM, model, named=False)
    with pytest.raises(ConfigError, match=r"is the calibration of .*m.keras: name another --output"):
        check_replaceable(path, retrained, other, named=False)


def test_only_a_calibration_of_the_model_is_overwritten_by_name(tmp_path: Path) -> None:
    model, path = tmp_path / "m.keras", tmp_path / "c.json"
    fit(random_walks(30)).save(path)
    check_replaceable(path, PROGRAM, model, named=True)
    with pytest.raises(ConfigError, match="is the calibration of another model"):
        check_replaceable(path, SummingProgram(timesteps=T, fingerprint="b" * 64), model, named=True)
    for content in (b"PK\x03\x04", b"{}", b'{"fingerprint": "a"}'):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="is not a calibration"):
            check_replaceable(path, PROGRAM, model, named=False)
    with pytest.raises(ConfigError, match="no folder"):
        check_replaceable(tmp_path / "absent" / "c.json", PROGRAM, model, named=True)


def test_a_calibration_of_another_length_says_so(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    fit(random_walks(30)).save(path)
    with pytest.raises(ConfigError, match=r"forecasts step 10, sequences of m.keras have 7: set sequence\.length = 10"):
        load_calibration(path, SummingProgram(timesteps=7), Path("m.keras"))
