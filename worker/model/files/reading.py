"""One reader for Keras files, by content and not by name: a zip of JSON and HDF5 (`.keras`), or HDF5 (`.h5`).

Facts of the layouts: Keras' own `saving_lib.py` (zip) and `legacy_h5_format.py` (HDF5). Only JSON and plain numeric
arrays are read; links, external storage and sizes beyond the bounds are refused before anything is allocated.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from worker.errors import ModelNotStreamable

WEIGHT_BYTES_MAX = 512 << 20
CONFIGURATION_BYTES_MAX = 16 << 20
LAYERS_MAX = 1000
WAY_OUT = "save the trained model again with model.save('model.keras')"

Array = npt.NDArray[np.float32]


@dataclass(slots=True)
class ModelFile:
    """`configuration` is the model's `{"class_name", "config"}`; `weights(layer name, class name, k)` its arrays.

    `k` counts the layers of one class in model order, from 0. `keras_major` is the generation that wrote the file.
    """

    path: Path
    configuration: dict[str, Any]
    keras_major: int
    weights: Callable[[str, str, int], list[Array]]


def read_model_file(path: Path) -> ModelFile:
    """Raises ModelNotStreamable with the file, what is wrong, and the way out."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            if path.stat().st_size > 2 * WEIGHT_BYTES_MAX:
                raise _refused(path, f"is larger than {2 * WEIGHT_BYTES_MAX >> 20} MiB", "serve a smaller model")
    except FileNotFoundError as error:
        raise _refused(path, "does not exist", "set model.path to a trained .keras or .h5 file") from error
    except IsADirectoryError as error:
        raise _refused(path, "is a directory (a SavedModel?)", WAY_OUT) from error
    except OSError as error:
        raise _refused(path, f"cannot be read ({error.strerror})", "check its permissions") from error
    try:
        if head.startswith(b"PK"):
            return _read_zip(path)
        if head == b"\x89HDF\r\n\x1a\n":
            return _read_hdf5(path)
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError, OSError, KeyError, RecursionError) as error:
        raise _refused(path, f"is damaged or incomplete ({error})", WAY_OUT) from error
    what = "is empty" if not head else "is neither a .keras zip nor an HDF5 file"
    raise _refused(path, what, WAY_OUT)


def _refused(path: Path, what: str, way_out: str) -> ModelNotStreamable:
    return ModelNotStreamable(f"{path} {what}", way_out)


def _read_zip(path: Path) -> ModelFile:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            bound = WEIGHT_BYTES_MAX if member.filename.endswith(".h5") else CONFIGURATION_BYTES_MAX
            if member.file_size > bound:
                raise _refused(path, f"holds {member.filename} of {member.file_size} bytes", "serve a smaller model")
        metadata = json.loads(archive.read("metadata.json"))
        configuration = json.loads(archive.read("config.json"))
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r")
    groups = weights["layers"] if "layers" in weights else weights["_layer_checkpoint_dependencies"]

    def layer_weights(name: str, class_name: str, k: int) -> list[Array]:
        prefix = _snake_case(class_name)
        numbered = sorted(
            (int(match.group(1) or 0), found)
            for found in groups
            if (match := re.fullmatch(rf"{prefix}(?:_(\d+))?", found))
        )
        if k >= len(numbered):
            return []
        group = groups[numbered[k][1]]
        holder = group["cell"]["vars"] if "cell" in group else group.get("vars", {})
        return [_array(path, holder, key, name) for key in sorted(holder, key=int)]

    return ModelFile(path, configuration, _major(metadata.get("keras_version")), layer_weights)


def _read_hdf5(path: Path) -> ModelFile:
    file = h5py.File(path, "r")
    raw = file.attrs.get("model_config")
    if raw is None:
        raise _refused(path, "holds weights but no architecture", "save the whole model with model.save('model.keras')")
    text = raw.decode("utf-8") if isinstance(raw, bytes) else str(raw)
    if len(text) > CONFIGURATION_BYTES_MAX:
        raise _refused(path, "has an oversized configuration", WAY_OUT)
    version = file.attrs.get("keras_version", "")
    root = file["model_weights"]

    def layer_weights(name: str, class_name: str, k: int) -> list[Array]:
        del class_name, k
        group = root.get(name)
        if group is None:
            return []
        names = [
            each.decode() if isinstance(each, bytes) else str(each) for each in group.attrs.get("weight_names", [])
        ]
        return [_array(path, group, each, name) for each in names]

    major = _major(version.decode() if isinstance(version, bytes) else version)
    return ModelFile(path, json.loads(text), major, layer_weights)


def _array(path: Path, group: Any, key: str, layer: str) -> Array:
    link = group.get(key, getlink=True) if "/" not in key else None
    if link is not None and not isinstance(link, h5py.HardLink):
        raise _refused(path, f"stores weights of {layer!r} behind a link", WAY_OUT)
    dataset = group[key]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual or dataset.dtype.kind != "f":
        raise _refused(path, f"stores weights of {layer!r} in a form that is not read", WAY_OUT)
    if dataset.size * 4 > WEIGHT_BYTES_MAX:
        raise _refused(path, f"declares weights of {layer!r} of {dataset.size} numbers", "serve a smaller model")
    array = np.asarray(dataset[...], np.float32)
    if not np.isfinite(array).all():
        raise _refused(path, f"has weights of {layer!r} that are not finite", "train the model again")
    return array


def _major(version: Any) -> int:
    match = re.match(r"(\d+)", str(version or ""))
    return int(match.group(1)) if match else 2


def _snake_case(class_name: str) -> str:
    """Keras' own rule for group names: SimpleRNN → simple_rnn, LSTM → lstm."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
