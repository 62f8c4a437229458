"""Sequences of npz files, and what a file that cannot be used gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from worker.errors import ConfigError
from worker.model.npz import read_npz

X = np.arange(24, dtype=np.float64).reshape(3, 4, 2)


def written(directory: Path, **arrays: object) -> Path:
    np.savez(directory / "data.npz", **arrays)
    return directory / "data.npz"


def changed(value: float) -> np.ndarray:
    x = X.copy()
    x[1, 3, 0] = value
    return x


def test_samples_are_float32_and_labels_and_names_may_be_absent(tmp_path: Path) -> None:
    found = read_npz(written(tmp_path, x=X))
    assert found.samples.dtype == np.float32
    np.testing.assert_array_equal(found.samples, X)
    assert (found.labels, found.recordings) == (["", "", ""], [])


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (np.array([4, 0, -1]), ["4", "0", "-1"]),
        (np.array([4.0, 0.0, 0.5]), ["4", "0", "0.5"]),
        (np.array([4.0, 0.0, 0.1], np.float32), ["4", "0", "0.1"]),
        (np.array(["run", "4.0", ""]), ["run", "4.0", ""]),
        (np.array([b"run", "größer".encode(), b"x"]), ["run", "größer", "x"]),
    ],
)
def test_labels_and_names_are_text_whatever_they_are_stored_as(
    tmp_path: Path, array: np.ndarray, texts: list[str]
) -> None:
    found = read_npz(written(tmp_path, x=X, y=array, recording=array))
    assert found.labels == found.recordings == texts


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"y": np.zeros(3)}, "is not an npz file with an array x: np.savez"),
        ({"x": np.array([X, "a"], object)}, "is not an npz file with an array x"),
        ({"x": X[0]}, "x (4, 2) of float64: give numbers of shape (sequences, timesteps, features)"),
        ({"x": np.full((3, 4, 2), "a")}, "x (3, 4, 2) of <U1: give numbers"),
        ({"x": X[:0]}, "x has no sequences, its shape is (0, 4, 2)"),
        ({"x": X[:, :0]}, "x has no timesteps"),
        ({"x": X[:, :, :0]}, "x has no features"),
        ({"x": changed(np.nan)}, "x[1, 3, 0] is nan (sequence, step, feature): give finite numbers"),
        ({"x": changed(-np.inf)}, "x[1, 3, 0] is -inf"),
        ({"x": changed(1e300)}, "x[1, 3, 0] is 1e+300"),
        ({"x": X, "y": np.eye(3)}, "the shape (3, 3) of labels in y: give y of shape (3,): y.argmax(axis=1)"),
        ({"x": X, "y": np.ones((3, 1))}, "give y of shape (3,): y[:, 0]"),
        ({"x": X, "y": np.ones(2)}, "3 sequences in x, 2 labels in y: give y of shape (3,)"),
        ({"x": X, "y": np.float64(1)}, "the shape () of labels in y"),
        ({"x": X, "y": np.ones(3, complex)}, "y holds complex128: give text or numbers"),
        ({"x": X, "recording": np.ones(4)}, "3 sequences in x, 4 names in recording"),
        (
            {"x": X, "recording": np.ones((3, 2))},
            "3 sequences in x, the shape (3, 2) of names in recording: give recording of shape (3,)",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, arrays: dict, complaint: str) -> None:
    path = written(tmp_path, **arrays)
    with pytest.raises(ConfigError) as refused:
        read_npz(path)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_npz_file_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", X)
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    (tmp_path / "text.npz").write_text("x")
    np.savez_compressed(tmp_path / "damaged.npz", x=np.random.default_rng(1).standard_normal((20, 5, 3)))
    content = bytearray((tmp_path / "damaged.npz").read_bytes())
    content[200:260] = bytes(255 - byte for byte in content[200:260])
    (tmp_path / "damaged.npz").write_bytes(content)
    for path in (tmp_path / "array.npz", tmp_path / "text.npz", tmp_path / "damaged.npz"):
        with pytest.raises(ConfigError, match="is not an npz file"):
            read_npz(path)


def test_a_file_that_is_not_there_and_labels_that_are_objects_are_told_apart(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.npz", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read: "):
            read_npz(path)
    np.savez(tmp_path / "objects.npz", x=X, y=np.array(["a"] * len(X), object), allow_pickle=True)
    with pytest.raises(ConfigError, match=r"y cannot be read: save y\.astype\(str\)"):
        read_npz(tmp_path / "objects.npz")
