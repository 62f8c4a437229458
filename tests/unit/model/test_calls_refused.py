"""Calls that say more than which values a layer gets: each is refused with what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.model.written_files import called, functional, layer, shaped
from worker.errors import ModelNotStreamable
from worker.model.compile import compile_model
from worker.model.files.reading import ModelFile

LSTM = layer("LSTM", "lstm", units=3, return_state=True)
DENSE = layer("Dense", "dense", units=1)
ATTENTION = layer("Attention", "attention")
OPERATOR = layer("TFOpLambda", "add")


def refusal(*layers, keras_major=3):
    configuration = functional("model", called(shaped(6, 3)), *layers)
    with pytest.raises(ModelNotStreamable) as refused:
        compile_model(ModelFile(Path("model.keras"), configuration, keras_major, lambda *_: []))
    return refused.value


def called_by_keras_2(entry, *given, **options):
    nodes = [[[given[0], 0, 0, options], *[[each, 0, 0, {}] for each in given[1:]]]]
    return {**entry, "name": entry["config"]["name"], "inbound_nodes": nodes}


def with_output(entry, number):
    """The layer takes another output than the first of the one before it."""
    entry["inbound_nodes"][0]["args"][0]["config"]["keras_history"][2] = number
    return entry


def test_the_state_of_a_layer_is_no_output_of_it():
    error = refusal(called(LSTM, "input"), with_output(called(DENSE, "lstm"), 2))

    assert "uses output 3 of layer 'lstm', such as a state (return_state)" in error.message
    assert error.hint == "build the model on the first output only"


def test_a_model_that_ends_in_a_state_is_refused_for_it():
    configuration = functional("model", called(shaped(6, 3)), called(LSTM, "input"))
    configuration["config"]["output_layers"] = [["lstm", 0, 1]]

    with pytest.raises(ModelNotStreamable, match="uses output 2 of layer 'lstm'"):
        compile_model(ModelFile(Path("model.keras"), configuration, 3, lambda *_: []))


@pytest.mark.parametrize(
    "error",
    [
        lambda: refusal(called(LSTM, "input", initial_state=[1.0])),
        lambda: refusal(called_by_keras_2(LSTM, "input", "input"), keras_major=2),
    ],
    ids=["Keras 3", "Keras 2"],
)
def test_an_initial_state_is_refused_by_name(error):
    assert "initial" in error().message
    assert error().hint == "call it without initial_state, so that sequences begin with zeros"


@pytest.mark.parametrize("key", ["use_causal_mask", "value"])
def test_arguments_of_attention_are_read_in_files_of_keras_3_only(key):
    error = refusal(called_by_keras_2(ATTENTION, "input", **{key: True}), keras_major=2)

    assert f"it is called with '{key}', which is read in files of Keras 3 only" in error.message
    assert error.hint.startswith("build the model with Keras 3")


@pytest.mark.parametrize("options", [{}, {"y": 2.0}])
def test_operators_of_keras_2_are_refused_as_such(options):
    error = refusal(called_by_keras_2(OPERATOR, "input", **options), keras_major=2)

    assert "operators such as x + y are not read in files of Keras 2" in error.message
    assert error.hint.startswith("use layers such as Add() and Rescaling()")
