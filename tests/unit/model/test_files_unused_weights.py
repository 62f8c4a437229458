"""Weights of a layer that the architecture does not have: it is not the one that they were saved with."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.unit.model.written_files import (
    called,
    functional,
    layer,
    numbers,
    sequential,
    shaped,
    write_hdf5,
    write_weights,
    write_zip,
)
from worker.errors import ModelNotStreamable
from worker.model.load import load_program

LSTM = numbers((3, 12), (3, 12), (12,))
DENSE = numbers((3, 1), (1,))
DROPOUT = layer("Dropout", "dropout", rate=0.5)
MODEL = sequential(
    shaped(6, 3), layer("LSTM", "lstm", units=3), DROPOUT, layer("Dense", "dense", units=1, activation="sigmoid")
)
STORED = {f"layers/lstm/cell/vars/{number}": each for number, each in enumerate(LSTM)} | {
    f"layers/dense/vars/{number}": each for number, each in enumerate(DENSE)
}
SECOND = {f"layers/lstm_1/cell/vars/{number}": each for number, each in enumerate(LSTM)}
OTHER = {"layers/conv1d/vars/0": np.ones((1, 3, 3), np.float32)}
OF_TRAINING = {
    "layers/dropout/seed_generator/vars/0": np.array([1, 2], np.uint32),
    "layers/identity/vars": None,
    "layers/flatten/seed_generator/vars/0": np.array([1, 2], np.uint32),
    "optimizer/vars/0": np.ones((), np.int64),
    "optimizer/lstm_kernel_momentum/vars/0": LSTM[0],
    "metrics/mean/vars/0": np.ones((), np.float32),
    "seed_generators/seed_generator/vars/0": np.array([1, 2], np.uint32),
    "vars": None,
}
SAID = "belong to no layer of its architecture: give the architecture that they were saved with"


@pytest.mark.parametrize("more", [SECOND, OTHER], ids=["of a known class", "of another class"])
@pytest.mark.parametrize("kind", ["zip", "weights"])
def test_a_layer_more_than_the_architecture_has_is_refused(more, kind, tmp_path):
    path = tmp_path / "model.weights.h5"
    if kind == "zip":
        write_zip(path, MODEL, STORED | more)
    else:
        write_weights(path, STORED | more)
        (tmp_path / "model.json").write_text(json.dumps(MODEL))

    with pytest.raises(ModelNotStreamable, match=SAID) as refused:
        load_program(path)

    assert f"layer {next(iter(more)).split('/')[1]!r}" in str(refused.value)


def test_what_belongs_to_the_training_is_no_layer(tmp_path):
    plain = load_program(write_zip(tmp_path / "plain.keras", MODEL, STORED))

    trained = load_program(write_zip(tmp_path / "trained.keras", MODEL, STORED | OF_TRAINING))

    assert trained.fingerprint == plain.fingerprint


def test_a_layer_more_in_a_nested_model_is_refused(tmp_path):
    inner = functional("inner", called(shaped(6, 3)), called(layer("LSTM", "lstm", units=3), "input"))
    model = sequential(shaped(6, 3), inner, layer("Dense", "dense", units=1))
    arrays = {f"layers/functional/{name}" if "lstm" in name else name: each for name, each in STORED.items()}
    load_program(write_zip(tmp_path / "model.keras", model, arrays))

    more = {f"layers/functional/{name}": each for name, each in SECOND.items()}
    with pytest.raises(ModelNotStreamable, match=f"'lstm_1' {SAID}"):
        load_program(write_zip(tmp_path / "model.keras", model, arrays | more))


def test_a_layer_more_in_an_hdf5_file_is_refused(tmp_path):
    weights = {
        "lstm": {f"lstm/{number}": each for number, each in enumerate(LSTM)},
        "dropout": {},
        "dense": {f"dense/{number}": each for number, each in enumerate(DENSE)},
        "flatten": {},
    }
    load_program(write_hdf5(tmp_path / "model.h5", MODEL, weights))

    with pytest.raises(ModelNotStreamable, match=f"'second' {SAID}"):
        load_program(write_hdf5(tmp_path / "model.h5", MODEL, weights | {"second": weights["lstm"]}))
