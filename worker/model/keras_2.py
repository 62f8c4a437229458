"""Keras 2 on the installed TensorFlow, the package tf_keras, for files that Keras 3 cannot load or reads otherwise.

It has no safe mode for HDF5 files and imports whatever a configuration names, so it is given only files whose every
entry is a layer that the compiler knows, or what trains one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from worker.errors import ModelNotStreamable
from worker.model.files.keras_hdf5 import read_hdf5
from worker.model.files.keras_zip import read_zip
from worker.model.files.legacy import CLASS_NAMES
from worker.model.files.reading import ZIP
from worker.model.rules.table import FLATTENING, RULES
from worker.model.tensorflow_import import importing_tensorflow

LAYERS = {
    *RULES,
    *FLATTENING,
    *CLASS_NAMES,
    *("Sequential", "Functional", "TimeDistributed", "ZeroPadding1D", "Bidirectional"),
    *("RNN", "LSTMCell", "GRUCell", "SimpleRNNCell", "StackedRNNCells"),
}
OTHERS = {"TensorShape", "__tuple__", "Policy"}
"""Shapes, and in what precision a layer computes."""
MODULES = {
    *(f"{root}{part}" for root in ("keras", "tf_keras") for part in ("", ".layers", ".src.engine.functional")),
    *("keras.initializers", "keras.regularizers", "keras.constraints", "keras.mixed_precision"),
}
"""What may be named as the home of a class; those of initializers and the like are looked up there by capital names."""


def load_by_keras_2(path: Path, architecture: Path | None = None) -> Any:
    """The model, by tf_keras, in which nothing of the file is executed. Imports TensorFlow.

    `architecture`: of a file that holds only weights, by default beside it.

    Raises ModelNotStreamable for a file that names anything else than layers, and what tf_keras raises.
    """
    with importing_tensorflow():
        import tf_keras

    training = (tf_keras.initializers, tf_keras.regularizers, tf_keras.constraints)
    known = LAYERS | OTHERS | {name for module in training for name in vars(module) if name[:1].isupper()}
    with path.open("rb") as file:
        is_zip = file.read(len(ZIP)) == ZIP
    configuration, _, content = read_zip(path) if is_zip else read_hdf5(path, architecture)
    if is_zip:
        configuration.pop("compile_config", None)  # it is not read, and may name a loss of the user's own
    with closing(content):
        for entry in _entries(configuration):
            _check(path, entry, known)
        # By its name tf_keras could take another part of the file for the model than the one that was looked at.
        if is_zip and path.suffix != ".keras":
            raise ModelNotStreamable(f"{path} is a .keras zip by another name", "rename it")
        if is_zip or "model_config" in content.attrs:
            return tf_keras.models.load_model(path if is_zip else content, compile=False)
    model = tf_keras.models.model_from_json(json.dumps(configuration))
    model.load_weights(path)
    return model


def _entries(value: Any) -> Iterator[dict[str, Any]]:
    """All objects at any depth; nesting is bounded by the JSON's."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _entries(each)


def _check(path: Path, entry: dict[str, Any], known: set[str]) -> None:
    name = entry.get("class_name")
    own_name = entry.get("registered_name") in (None, name)
    if (name is not None and name not in known) or entry.get("module", "keras") not in MODULES or not own_name:
        raise ModelNotStreamable(
            f"{path} names {str(name)[:60]!r}, which Keras 2 is not given: nothing in a file is executed",
            "load it where it was made",
        )
