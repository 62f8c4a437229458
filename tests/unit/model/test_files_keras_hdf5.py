"""Whose weights are whose where a layer has parts, some of them not trained: HDF5 files list the trained ones first."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.model.written_files import called, functional, layer, numbers, sequential, shaped, write_hdf5
from worker.errors import ModelNotStreamable
from worker.model.load import load_program

CELL = [(3, 12), (3, 12), (12,)]
PARTS = ("kernel", "recurrent_kernel", "bias")


def stacked(*trained: bool, name: str = "lstm_cell"):
    cells = [
        layer("LSTMCell", f"{name}_{number}" if number else name, units=3, trainable=each)
        for number, each in enumerate(trained)
    ]
    rnn = layer("RNN", "rnn", cell=layer("StackedRNNCells", "stacked_rnn_cells", cells=cells))
    return sequential(shaped(6, 3), rnn, layer("Dense", "dense", units=1, activation="sigmoid"))


def weights_of_cells(prefixes, order):
    """The arrays of both cells, in this order of cells, called after these."""
    return {
        f"{prefixes[cell]}/{part}": array
        for cell in order
        for part, array in zip(PARTS, numbers(*CELL, seed=cell), strict=True)
    }


def fingerprint(path, configuration, of_cells):
    dense = dict(zip(("dense/kernel", "dense/bias"), numbers((3, 1), (1,), seed=9), strict=True))
    return load_program(write_hdf5(path, configuration, {"rnn": of_cells, "dense": dense})).fingerprint


@pytest.mark.parametrize("end", ["", ":0"], ids=["Keras 3", "Keras 2"])
@pytest.mark.parametrize("trained", [(False, True), (True, False)])
def test_cells_that_are_not_trained_keep_their_own_weights(trained, end, tmp_path):
    prefixes = ["rnn/stacked_rnn_cells/lstm_cell", "rnn/stacked_rnn_cells/lstm_cell_1"]
    listed = weights_of_cells(prefixes, sorted((0, 1), key=lambda cell: not trained[cell]))
    plain = weights_of_cells(prefixes, (0, 1))

    found = fingerprint(tmp_path / "frozen.h5", stacked(*trained), {name + end: each for name, each in listed.items()})

    assert found == fingerprint(tmp_path / "plain.h5", stacked(True, True), plain)


def test_cells_whose_weights_have_other_names_are_read_in_order_where_all_are_trained_alike(tmp_path):
    prefixes = ["rnn/a", "rnn/b"]
    named = weights_of_cells(["rnn/stacked_rnn_cells/lstm_cell", "rnn/stacked_rnn_cells/lstm_cell_1"], (0, 1))

    found = fingerprint(tmp_path / "model.h5", stacked(True, True), weights_of_cells(prefixes, (0, 1)))

    assert found == fingerprint(tmp_path / "named.h5", stacked(True, True), named)
    with pytest.raises(ModelNotStreamable, match="set trainable alike for all cells") as refused:
        fingerprint(tmp_path / "frozen.h5", stacked(False, True), weights_of_cells(prefixes, (1, 0)))
    assert "'rnn' do not say which belong to the cells that are not trained" in str(refused.value)


def test_projections_of_attention_that_are_not_trained_keep_their_own_weights(tmp_path):
    shapes = {"query": (4, 4, 4), "key": (4, 4, 4), "value": (4, 4, 4), "attention_output": (4, 4, 4)}
    arrays = {f"mha/{name}/kernel": each for name, each in zip(shapes, numbers(*shapes.values()), strict=True)}
    listed = {name: arrays[name] for name in sorted(arrays, key=lambda name: "query" in name)}
    head = {"dense/kernel": np.ones((4, 1), np.float32), "dense/bias": np.zeros(1, np.float32)}

    found = [
        load_program(
            write_hdf5(tmp_path / "model.h5", attending(), {"mha": each, "gru": gru(), "dense": head})
        ).fingerprint
        for each in (arrays, listed)
    ]

    assert found[0] == found[1]


def gru():
    names = [f"gru/gru_cell/{part}" for part in PARTS]
    return dict(zip(names, numbers((4, 12), (4, 12), (2, 12), seed=3), strict=True))


def attending():
    """Causal self-attention without biases, four heads of four on four features: all its kernels have one shape."""
    attention = layer("MultiHeadAttention", "mha", num_heads=4, key_dim=4, use_bias=False)
    return functional(
        "model",
        called(shaped(6, 4)),
        called(attention, "input", "input", use_causal_mask=True),
        called(layer("GRU", "gru", units=4, reset_after=True), "mha"),
        called(layer("Dense", "dense", units=1, activation="sigmoid"), "gru"),
    )
