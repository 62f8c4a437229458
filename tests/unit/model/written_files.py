"""Model files in the layouts of Keras, of any configuration and arrays, written without Keras."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Arrays = dict[str, Any]
"""Path in the file → array."""
KERAS_3 = "3.15.0"


def layer(class_name: str, name: str, /, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": class_name, "config": {"name": name, **config}}


def shaped(*shape: int | None, name: str = "input") -> dict[str, Any]:
    return layer("InputLayer", name, batch_shape=[None, *shape])


def sequential(*layers: dict[str, Any], name: str = "model") -> dict[str, Any]:
    return {"module": "keras", "class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def called(entry: dict[str, Any], *given: str, **options: Any) -> dict[str, Any]:
    """A layer of a functional model of Keras 3 that is called once, with the outputs of these layers."""
    tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}} for name in given]
    several = entry["class_name"] in ("Add", "Concatenate")
    arguments = [tensors] if several else tensors
    nodes = [{"args": arguments, "kwargs": options}] if given else []
    return {**entry, "name": entry["config"]["name"], "inbound_nodes": nodes}


def functional(name: str, *layers: dict[str, Any]) -> dict[str, Any]:
    """From the first layer to the last one."""
    first, last = (each["config"]["name"] for each in (layers[0], layers[-1]))
    config = {"name": name, "layers": list(layers), "input_layers": [[first, 0, 0]], "output_layers": [[last, 0, 0]]}
    return {"module": "keras", "class_name": "Functional", "config": config}


def numbers(*shapes: tuple[int, ...], seed: int = 0) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 0.5, shape).astype(np.float32) for shape in shapes]


def write_hdf5(
    path: Path, configuration: dict[str, Any], weights: dict[str, Arrays], version: str | None = KERAS_3
) -> Path:
    """As `model.save` does: layer → name of the array → array, in the order of `weight_names`."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(configuration)
        if version is not None:
            file.attrs["keras_version"] = version
        file.create_group("model_weights").attrs["layer_names"] = [name.encode() for name in weights]
        for name, arrays in weights.items():
            group = file.create_group(f"model_weights/{name}")
            group.attrs["weight_names"] = [each.encode() for each in arrays]
            for each, array in arrays.items():
                group[each] = array
    return path


def write_zip(path: Path, configuration: dict[str, Any], weights: Arrays, metadata: Any = None) -> Path:
    """As Keras 3 writes a `.keras` file: `layers/dense/vars/0` → array, None for a group without any."""
    buffer = io.BytesIO()
    write_weights(buffer, weights)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": KERAS_3} if metadata is None else metadata))
        archive.writestr("config.json", json.dumps(configuration))
        archive.writestr("model.weights.h5", buffer.getvalue())
    return path


def write_weights(target: Any, weights: Arrays) -> None:
    """As `save_weights('model.weights.h5')` does."""
    with h5py.File(target, "w") as file:
        for name, array in weights.items():
            if array is None:
                file.create_group(name)
            else:
                file[name] = array
