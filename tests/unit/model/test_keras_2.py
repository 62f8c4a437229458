"""Files of Keras 2 by tf_keras: their own numbers, and nothing in them is executed."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from worker.errors import ModelNotStreamable
from worker.model.keras_2 import load_by_keras_2
from worker.model.training import KERAS_2, KERAS_3, predict

GENERATIONS = Path(__file__).parents[2] / "goldens" / "generations"
OF_CODE = {"class_name": "Lambda", "config": {"name": "code", "function": ["4wEAAAA=", None, None]}}
OF_AN_OPERATION = {"class_name": "TFOpLambda", "config": {"name": "code", "function": "io.write_file"}}


@pytest.mark.parametrize(
    "name", ["keras222_lstm.h5", "keras224_lstm.h5", "tf215_functional.h5", "tf_keras221_masked.keras"]
)
def test_files_that_keras_3_does_not_load_are_predicted_as_they_were_then(name: str) -> None:
    golden = np.load(GENERATIONS / f"{name.rsplit('.', 1)[0]}.npz")
    with pytest.raises((ValueError, TypeError)):
        predict(GENERATIONS / name, golden["inputs"])
    found = predict(GENERATIONS / name, golden["inputs"], KERAS_2)
    np.testing.assert_allclose(found[:, -1], golden["outputs"], atol=1e-6)


def test_inputs_of_ids_sequences_and_static_ones_are_taken_apart(tmp_path: Path) -> None:
    import tf_keras

    layers, shapes = tf_keras.layers, {"ids": (6,), "signal": (6, 2), "age": (3,)}
    ids, signal, age = (tf_keras.Input(shape, name=name) for name, shape in shapes.items())
    sequence = layers.GRU(4)(layers.Concatenate()([layers.Embedding(9, 3)(ids), signal]))
    both = layers.Concatenate()([sequence, layers.Dense(2)(age)])
    model = tf_keras.Model([ids, signal, age], layers.Dense(1, activation="sigmoid")(both))
    generator = np.random.default_rng(0)
    given = generator.integers(0, 9, (5, 6)), generator.normal(size=(5, 6, 2)), generator.normal(size=(5, 3))
    columns = given[0][..., None], given[1], np.repeat(given[2][:, None], 6, axis=1)
    for name in ("model.h5", "model.keras"):
        model.save(tmp_path / name)
        found = predict(tmp_path / name, np.concatenate(columns, axis=-1).astype(np.float32), KERAS_2)
        np.testing.assert_allclose(found[:, -1], model.predict(list(given), verbose=0), atol=1e-6)


def with_configuration(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A file of Keras 2, HDF5 or zip by the suffix, whose configuration was changed."""
    golden = GENERATIONS / f"tf215_lstm{path.suffix}"
    shutil.copy(golden, path)
    if path.suffix == ".h5":
        with h5py.File(path, "a") as content:
            configuration = json.loads(content.attrs["model_config"])
            change(configuration)
            content.attrs["model_config"] = json.dumps(configuration)
        return path
    with zipfile.ZipFile(golden) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.namelist():
            written = source.read(member)
            if member == "config.json":
                configuration = json.loads(written)
                change(configuration)
                written = json.dumps(configuration).encode()
            target.writestr(member, written)
    return path


def last_layer(configuration: dict[str, Any]) -> dict[str, Any]:
    return configuration["config"]["layers"][-1]


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["config"]["layers"].append(OF_CODE),
        lambda c: c["config"]["layers"].append(OF_AN_OPERATION),
        lambda c: last_layer(c)["config"].update(kernel_regularizer={"class_name": "Popen", "module": "subprocess"}),
        lambda c: last_layer(c).update(module="of_a_user"),
        lambda c: last_layer(c).update(registered_name="user>Dense"),
        lambda c: last_layer(c)["config"].update(
            activation={"class_name": "function", "module": "keras.utils", "config": "get_file"}
        ),
        # Our reader takes it for the number 1.
        lambda c: last_layer(c)["config"].update(name={**OF_CODE, "type": "ndarray", "value": 1}),
    ],
)
def test_a_file_that_names_anything_else_than_layers_is_refused(
    tmp_path: Path, suffix: str, change: Callable[[dict[str, Any]], object]
) -> None:
    with pytest.raises(ModelNotStreamable, match="nothing in a file is executed"):
        load_by_keras_2(with_configuration(tmp_path / f"model{suffix}", change))


@pytest.mark.parametrize(
    ("name", "package", "error", "said"),
    [
        ("tf215_gru_alone", KERAS_2, ModelNotStreamable, "nothing in a file is executed"),
        ("keras315_gru_alone", KERAS_3, ValueError, "Lambda"),
    ],
)
def test_an_architecture_beside_weights_is_not_executed_either(
    tmp_path: Path, name: str, package: str, error: type[Exception], said: str
) -> None:
    architecture = tmp_path / "model.json"
    configuration = json.loads((GENERATIONS / f"{name}.json").read_text())
    code = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}
    of_keras_3 = {"module": "keras.layers", "class_name": "Lambda", "registered_name": None}
    of_code = OF_CODE if package == KERAS_2 else {**of_keras_3, "config": {"name": "code", "function": code}}
    configuration["config"]["layers"].append(of_code)
    architecture.write_text(json.dumps(configuration))
    with pytest.raises(error, match=said):
        predict(GENERATIONS / f"{name}.weights.h5", np.zeros((1, 5, 3), np.float32), package, architecture)


def test_what_the_model_was_trained_with_does_not_matter(tmp_path: Path) -> None:
    own_loss = {"optimizer": "adam", "loss": {"class_name": "function", "module": "of_a_user", "config": "loss"}}
    path = with_configuration(tmp_path / "model.keras", lambda c: c.update(compile_config=own_loss))
    assert load_by_keras_2(path).output_shape[-1] == 1


def test_an_hdf5_file_is_loaded_as_such_though_a_zip_hangs_on_it(tmp_path: Path) -> None:
    hostile = with_configuration(tmp_path / "hostile.keras", lambda c: c["config"]["layers"].append(OF_CODE))
    both = tmp_path / "both.keras"
    both.write_bytes((GENERATIONS / "tf215_lstm.h5").read_bytes() + hostile.read_bytes())
    assert zipfile.is_zipfile(both)
    assert [type(layer).__name__ for layer in load_by_keras_2(both).layers][-1] == "Dense"


def test_a_zip_by_another_name_is_refused(tmp_path: Path) -> None:
    shutil.copy(GENERATIONS / "tf215_lstm.keras", tmp_path / "model.h5")
    with pytest.raises(ModelNotStreamable, match="rename it"):
        load_by_keras_2(tmp_path / "model.h5")
