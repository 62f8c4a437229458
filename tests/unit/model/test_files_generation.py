"""Which Keras wrote a file whose version is missing or cannot be read: `hard_sigmoid` differs between the two."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import pytest

from tests.unit.model.written_files import layer, numbers, sequential, shaped, write_hdf5, write_zip
from worker.errors import ModelNotStreamable
from worker.model.files.reading import open_model_file
from worker.model.load import load_program

GENERATIONS = Path(__file__).parents[2] / "goldens" / "generations"
DENSE = layer("Dense", "dense", units=1, activation="sigmoid")
LSTM = layer("LSTM", "lstm", units=3, recurrent_activation="hard_sigmoid")
MODEL = sequential(shaped(6, 3), LSTM, DENSE)
WITHOUT_SHAPE = sequential(LSTM, DENSE)
ARRAYS = numbers((3, 12), (3, 12), (12,), (3, 1), (1,))
STORED = {f"layers/lstm/cell/vars/{number}": each for number, each in enumerate(ARRAYS[:3])} | {
    f"layers/dense/vars/{number}": each for number, each in enumerate(ARRAYS[3:])
}


def without_version(path: Path, target: Path) -> Path:
    shutil.copy(path, target)
    with h5py.File(target, "r+") as file:
        file.attrs.pop("keras_version", None)
    return target


@pytest.mark.parametrize("metadata", [{}, {"keras_version": None}, {"keras_version": "abc"}, {"keras_version": 3.5}])
def test_a_zip_that_does_not_say_its_version_is_read_by_its_words(metadata, tmp_path):
    path = write_zip(tmp_path / "model.keras", MODEL, STORED, metadata)

    known = load_program(write_zip(tmp_path / "known.keras", MODEL, STORED, {"keras_version": "3.5.0"}))

    assert load_program(path).fingerprint == known.fingerprint
    older = load_program(write_zip(tmp_path / "older.keras", MODEL, STORED, {"keras_version": "2.15.0"}))
    assert older.fingerprint != known.fingerprint


@pytest.mark.parametrize("file", ["keras222_gru.h5", "keras231_lstm.h5", "tf215_gru.h5", "keras315_gru.h5"])
def test_an_hdf5_file_that_does_not_say_its_version_is_read_by_its_words(file, tmp_path):
    assert (
        load_program(without_version(GENERATIONS / file, tmp_path / file)).fingerprint
        == load_program(GENERATIONS / file).fingerprint
    )


def test_the_generation_without_a_version_is_told_by_the_inputs(tmp_path):
    older = sequential(layer("LSTM", "lstm", units=3, batch_input_shape=[None, 6, 3]), DENSE)
    for configuration, major in ((MODEL, 3), (older, 2)):
        with open_model_file(write_zip(tmp_path / "model.keras", configuration, STORED, {})) as file:
            assert file.keras_major == major


@pytest.mark.parametrize("version", ["4.0.0", "30.1", "4"])
@pytest.mark.parametrize("kind", ["zip", "h5"])
def test_a_version_that_is_not_known_yet_is_refused(version, kind, tmp_path):
    path = tmp_path / "model"
    if kind == "zip":
        write_zip(path, MODEL, STORED, {"keras_version": version})
    else:
        write_hdf5(path, MODEL, {}, version)

    with pytest.raises(ModelNotStreamable, match=f"was written by Keras {version}"):
        load_program(path)


def test_a_file_that_tells_nothing_of_its_generation_is_refused(tmp_path):
    with pytest.raises(ModelNotStreamable, match="does not say which version of Keras wrote it"):
        load_program(write_zip(tmp_path / "model.keras", WITHOUT_SHAPE, STORED, {}), timesteps=6)
