"""Layers that are in several models: a `.keras` file has their weights in the first of these only."""

from __future__ import annotations

import pytest

from tests.unit.model.written_files import called, functional, layer, numbers, shaped, write_hdf5, write_zip
from worker.errors import ModelNotStreamable
from worker.model.load import load_program

KERAS_2 = {"keras_version": "2.15.0"}
LSTM = [(3, 12), (3, 12), (12,)]
PARTS = ("kernel", "recurrent_kernel", "bias")


def encoder(name, **entry):
    """Two layers, of which `rec` may be another encoder's too."""
    recurrent = {**layer("LSTM", "rec", units=3, return_sequences=True), **entry}
    return functional(
        name,
        called(shaped(6, 3)),
        called(recurrent, "input"),
        called(layer("LSTM", "own", units=3, return_sequences=True), "rec"),
    )


def model(*encoders):
    names = [each["config"]["name"] for each in encoders]
    return functional(
        "model",
        called(shaped(6, 3)),
        *[called(each, "input") for each in encoders],
        called(layer("Concatenate", "all"), *names),
        called(layer("GRU", "top", units=2, reset_after=True), "all"),
        called(layer("Dense", "dense", units=1, activation="sigmoid"), "top"),
    )


def lstm(seed):
    return numbers(*LSTM, seed=seed)


def top(encoders):
    return numbers((3 * encoders, 6), (2, 6), (2, 6), seed=20), numbers((2, 1), (1,), seed=21)


def stored(layers, encoders=2):
    """`.keras` groups with their arrays."""
    gru, dense = top(encoders)
    groups = {f"{name}/cell": lstm(seed) for name, seed in layers.items()} | {"gru/cell": gru, "dense": dense}
    return {
        f"layers/{name}/vars/{number}": array for name, arrays in groups.items() for number, array in enumerate(arrays)
    }


def expected(path, configuration, *seeds):
    """The fingerprint of the `.h5` file, in which every model has all its layers; seeds of `rec` and `own` of each."""
    gru, dense = top(len(seeds))
    weights = {
        f"e{number}": {
            f"e{number}/{name}/lstm_cell/{part}": array
            for name, seed in zip(("rec", "own"), pair, strict=True)
            for part, array in zip(PARTS, lstm(seed), strict=True)
        }
        for number, pair in enumerate(seeds)
    }
    weights["top"] = {f"top/{part}": array for part, array in zip(PARTS, gru, strict=True)}
    weights["dense"] = {f"dense/{part}": array for part, array in zip(("kernel", "bias"), dense, strict=True)}
    return load_program(write_hdf5(path, configuration, weights)).fingerprint


def test_keras_3_leaves_out_the_number_of_a_layer_that_is_in_an_earlier_model(tmp_path):
    configuration = model(encoder("e0"), encoder("e1"))
    arrays = stored({"functional/layers/lstm": 1, "functional/layers/lstm_1": 2, "functional_1/layers/lstm_1": 3})

    found = load_program(write_zip(tmp_path / "model.keras", configuration, arrays)).fingerprint

    assert found == expected(tmp_path / "model.h5", configuration, (1, 2), (1, 3))


def test_a_model_all_of_whose_layers_are_in_an_earlier_one_is_read(tmp_path):
    configuration = model(encoder("e0"), encoder("e1"))
    arrays = stored({"functional/layers/lstm": 1, "functional/layers/lstm_1": 2}) | {"layers/functional_1/vars": None}

    found = load_program(write_zip(tmp_path / "model.keras", configuration, arrays)).fingerprint

    assert found == expected(tmp_path / "model.h5", configuration, (1, 2), (1, 2))


def test_keras_2_counts_on_without_a_layer_that_is_in_an_earlier_model(tmp_path):
    configuration = model(encoder("e0"), encoder("e1", shared_object_id=7))
    arrays = stored({"functional/layers/lstm": 1, "functional/layers/lstm_1": 2, "functional_1/layers/lstm": 3})
    found = load_program(write_zip(tmp_path / "model.keras", configuration, arrays, KERAS_2))

    written = write_zip(tmp_path / "all.keras", configuration, all_there(), KERAS_2)

    assert found.fingerprint == load_program(written).fingerprint


def all_there():
    """Of both encoders, with `rec` twice."""
    names = [f"functional{end}/layers/lstm{number}" for end in ("", "_1") for number in ("", "_1")]
    return stored(dict(zip(names, (1, 2, 1, 3), strict=True)))


def test_a_file_of_keras_2_that_does_not_say_which_layer_is_in_both_is_refused(tmp_path):
    configuration = model(encoder("e0"), encoder("e1"))
    arrays = stored({"functional/layers/lstm": 1, "functional/layers/lstm_1": 2, "functional_1/layers/lstm": 3})

    with pytest.raises(ModelNotStreamable, match="'rec' may be those of another model") as refused:
        load_program(write_zip(tmp_path / "model.keras", configuration, arrays, KERAS_2))

    assert refused.value.hint == "save it with model.save('model.h5')"


def test_a_layer_that_may_be_one_of_two_others_is_refused(tmp_path):
    configuration = model(*[encoder(f"e{number}") for number in range(3)])
    names = [f"functional{end}/layers/lstm{number}" for end in ("", "_1", "_2") for number in ("", "_1")]
    names.remove("functional_2/layers/lstm")
    arrays = stored({name: seed for seed, name in enumerate(names)}, 3)

    with pytest.raises(ModelNotStreamable, match="'e2/rec' is in two models, and two others are called the same"):
        load_program(write_zip(tmp_path / "model.keras", configuration, arrays))
