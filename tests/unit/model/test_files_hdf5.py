"""HDF5 files of Keras 3: which layer of a nested model an array belongs to, and low-rank updates of weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.goldens.table import all_outputs
from tests.goldens.writing import set_random_weights
from worker.errors import ModelNotStreamable
from worker.model.files.keras_hdf5 import owned
from worker.model.files.low_rank import merged
from worker.model.files.places import Place, Step
from worker.model.load import load_program

SEQUENCES = np.random.default_rng(0).normal(0, 1, (4, 7, 3)).astype(np.float32)
Build = Callable[[Any], Any]
"""Keras → a layer."""


def model_around(keras: Any, layer: Any) -> Any:
    layers = keras.layers
    inputs = keras.Input((7, 3))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(layers.GRU(2)(layer(inputs))))
    set_random_weights(model, np.random.default_rng(1))
    return model


def check_file(path: Path, model: Any) -> None:
    """What is read is what the model predicts."""
    found = all_outputs(load_program(path), SEQUENCES)[:, -1]
    np.testing.assert_allclose(found, model.predict(SEQUENCES, verbose=0), atol=1e-6)


def distributed(keras: Any) -> Any:
    lay = keras.layers
    inner = keras.Sequential([lay.TimeDistributed(lay.Dense(3)), lay.Dense(3)])
    return keras.Sequential([lay.TimeDistributed(lay.Dense(3)), inner, lay.TimeDistributed(lay.LayerNormalization())])


def cells(keras: Any) -> Any:
    lay, every = keras.layers, {"return_sequences": True}
    stacked = lay.RNN([lay.GRUCell(3), lay.LSTMCell(3)], **every)
    return keras.Sequential([lay.RNN(lay.SimpleRNNCell(3), **every), stacked, lay.RNN(lay.GRUCell(3), **every)])


@pytest.mark.parametrize("build", [distributed, cells])
def test_a_model_that_keras_saved_and_loaded_names_arrays_after_what_its_layers_hold(
    tmp_path: Path, build: Build
) -> None:
    import keras

    model = model_around(keras, build(keras))
    model.save(tmp_path / "model.keras")
    keras.models.load_model(tmp_path / "model.keras").save(tmp_path / "model.h5")

    check_file(tmp_path / "model.h5", model)


def beside(keras: Any) -> Any:
    dense, distribute = keras.layers.Dense, keras.layers.TimeDistributed
    return keras.Sequential([distribute(dense(3, name="x"), name="y"), dense(3, name="x")])


def above(keras: Any) -> Any:
    dense = keras.layers.Dense
    return keras.Sequential([dense(3, name="x"), keras.Sequential([dense(3, name="x")], name="inner")], name="outer")


@pytest.mark.parametrize("build", [beside, above])
def test_layers_of_one_name_in_a_nested_model_have_each_its_own_arrays(tmp_path: Path, build: Build) -> None:
    import keras

    model = model_around(keras, build(keras))
    model.save(tmp_path / "model.h5")

    check_file(tmp_path / "model.h5", model)


def test_names_that_are_those_of_very_many_layers_are_refused_in_bounded_time() -> None:
    places = [Place((Step("m", "F", 0), Step(str(n), "F", n), Step("x", "D", 0))) for n in range(1000)]

    assert len(owned(["m/7/x/kernel"], places)) == 1
    with pytest.raises(ValueError, match="too many layers"):
        owned([f"m/x/{number}" for number in range(4096)], places)


@pytest.mark.parametrize("use_bias", [True, False])
def test_low_rank_updates_are_merged_into_their_weights(tmp_path: Path, use_bias: bool) -> None:
    import keras

    lay = keras.layers
    parts = [lay.Dense(3, use_bias=use_bias), lay.Conv1D(3, 2), lay.TimeDistributed(lay.Dense(3, use_bias=use_bias))]
    model = model_around(keras, keras.Sequential(parts))
    for rank, layer in enumerate([parts[0], parts[1], parts[2].layer], 1):
        layer.enable_lora(rank)
    set_random_weights(model, np.random.default_rng(2))
    model.save(tmp_path / "model.h5")

    check_file(tmp_path / "model.h5", model)


def test_an_update_of_a_scale_that_keras_forgets_is_refused_with_a_way_out_that_works(tmp_path: Path) -> None:
    import keras

    dense = keras.layers.Dense(3, name="updated")
    model = model_around(keras, dense)
    dense.enable_lora(2, lora_alpha=3)
    set_random_weights(model, np.random.default_rng(2))
    model.save(tmp_path / "model.h5")
    model.save(tmp_path / "model.keras")

    with pytest.raises(ModelNotStreamable, match=r"'updated' have a low-rank update .*save\('model.keras'\)"):
        load_program(tmp_path / "model.h5")
    check_file(tmp_path / "model.keras", model)


def array(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(0, 1, shape).astype(np.float32)


def test_a_weight_with_an_update_is_the_first_of_its_layer() -> None:
    names = [
        "m/query/bias:0",
        "m/query/lora_kernel_a:0",
        "m/query/lora_kernel_b:0",
        "m/key/kernel:0",
        "m/query/kernel:0",
    ]
    arrays = [array(4), array(3, 2), array(2, 4), array(5, 5), array(3, 4)]

    found = merged(names, arrays)

    assert [each.shape for each in found] == [(3, 4), (4,), (5, 5)]
    np.testing.assert_array_equal(found[0], arrays[4] + arrays[1] @ arrays[2])


@pytest.mark.parametrize(
    ("names", "shapes"),
    [
        (["d/lora_kernel_a", "d/kernel"], [(3, 2), (3, 4)]),
        (["d/lora_kernel_a", "d/lora_kernel_b"], [(3, 2), (2, 4)]),
        (["d/lora_kernel_a", "d/lora_kernel_b", "d/kernel"], [(3, 2), (1, 4), (3, 4)]),
        (["d/lora_kernel_a", "d/lora_kernel_b", "d/kernel"], [(3, 2), (2, 4), (4, 4)]),
        (["d/lora_kernel_a", "d/lora_kernel_b", "d/kernel"], [(3, 2), (2, 1, 4), (3, 4)]),
        (["d/lora_kernel_a", "d/lora_kernel_b", "d/kernel"], [(), (), ()]),
    ],
)
def test_an_update_that_does_not_fit_is_no_update(names: list[str], shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        merged(names, [array(*shape) for shape in shapes])
