"""What a layer is called with besides its input, by configuration and by files of both generations of Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.goldens.table import all_outputs
from worker.errors import ModelNotStreamable
from worker.model.calls import checked_keywords
from worker.model.load import load_program
from worker.model.training import KERAS_2, predict

ENTRY = {"class_name": "Dropout", "config": {"name": "drop"}}


@pytest.mark.parametrize("given", [True, 1, ["input", 0, 0]])
def test_a_call_as_in_training_is_refused_in_files_of_keras_2(given: Any) -> None:
    with pytest.raises(ModelNotStreamable, match=r"layer 'drop' \(Dropout\).*training=True.*build the model without"):
        checked_keywords(ENTRY, {"training": given}, 2)


@pytest.mark.parametrize(("given", "keras_major"), [(None, 2), (False, 2), (0, 2), (True, 3), (None, 3)])
def test_other_calls_with_training_are_as_without_it(given: Any, keras_major: int) -> None:
    assert checked_keywords(ENTRY, {"training": given}, keras_major) == {"training": given}


@pytest.mark.parametrize("keras_major", [2, 3])
def test_what_changes_the_numbers_is_refused(keras_major: int) -> None:
    with pytest.raises(ModelNotStreamable, match="it is called with 'initial_state'"):
        checked_keywords(ENTRY, {"initial_state": [["input", 0, 0]]}, keras_major)


def model_in_training(keras: Any, layer: str) -> Any:
    """Of which one layer, or the model within, is called with `training=True`."""
    layers = keras.layers
    inputs, inner = keras.Input((6, 3)), keras.Input((6, 3))
    nested = keras.Model(inner, layers.GRU(4)(inner), name="nested")
    calls = {name: {"training": True} if name == layer else {} for name in ("norm", "nested", "drop")}
    value = layers.BatchNormalization(name="norm")(inputs, **calls["norm"])
    value = layers.Dropout(0.5, name="drop")(nested(value, **calls["nested"]), **calls["drop"])
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(value))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("layer", ["norm", "nested", "drop"])
def test_files_of_keras_2_that_predict_as_in_training_are_refused(tmp_path: Path, layer: str, suffix: str) -> None:
    import tf_keras

    path = tmp_path / f"model{suffix}"
    model_in_training(tf_keras, layer).save(path)
    with pytest.raises(ModelNotStreamable, match=rf"layer '{layer}' .*training=True"):
        load_program(path)
    if layer != "nested":  # the one within has neither dropout nor statistics, so nothing shows
        x = np.random.default_rng(0).normal(2, 3, (8, 6, 3)).astype(np.float32)
        other = model_in_training(tf_keras, "")
        other.set_weights(tf_keras.models.load_model(path).get_weights())
        assert np.abs(predict(path, x, KERAS_2)[:, -1] - other.predict(x, verbose=0)).max() > 1e-3


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("layer", ["norm", "nested", "drop"])
def test_keras_3_predicts_as_not_in_training_whatever_a_call_says(tmp_path: Path, layer: str, suffix: str) -> None:
    import keras

    path = tmp_path / f"model{suffix}"
    model_in_training(keras, layer).save(path)
    x = np.random.default_rng(0).normal(2, 3, (8, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(all_outputs(load_program(path), x)[:, -1], predict(path, x)[:, -1], atol=1e-6)
