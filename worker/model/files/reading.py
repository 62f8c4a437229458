"""One reader for Keras files, by content and not by name: a zip of JSON and HDF5 (`.keras`), or HDF5 (`.h5`).

Facts of the layouts: Keras' own `saving_lib.py` (zip) and `legacy_h5_format.py` (HDF5). Only JSON and plain numeric
arrays are read; links, external storage and sizes beyond the bounds are refused before anything is allocated.
"""

from __future__ import annotations

import io
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from worker.errors import ModelNotStreamable
from worker.model.files.weights import ARRAYS_MAX, WAY_OUT, WEIGHT_BYTES_MAX, Array, WeightReader, attribute

CONFIGURATION_BYTES_MAX = 16 << 20
FILE_BYTES_MAX = 2 * WEIGHT_BYTES_MAX
NESTING_MAX = 64
"""Levels of the configuration; those of Keras have about ten."""
INFLATION_MAX = 100
"""Of a zip member against its compressed size; trained weights hardly compress at all."""


@dataclass(slots=True)
class ModelFile:
    """`configuration` is the model's `{"class_name", "config"}`; `weights(layer name, class name, k)` its arrays.

    `k` counts the layers of one class in model order, from 0. `keras_major` is the generation that wrote the file.
    """

    path: Path
    configuration: dict[str, Any]
    keras_major: int
    weights: Callable[[str, str, int], list[Array]]


@contextmanager
def open_model_file(path: Path) -> Iterator[ModelFile]:
    """Raises ModelNotStreamable with the file, what is wrong, and the way out; `weights` does too."""
    head = _head(path)
    if not head.startswith(b"PK") and head != b"\x89HDF\r\n\x1a\n":
        what = "is neither a .keras zip nor an HDF5 file" if head else "is empty"
        raise _refused(path, what, WAY_OUT)
    with _damage_refused(path):
        is_zip = head.startswith(b"PK")
        configuration, keras_major, content = _read_zip(path) if is_zip else _read_hdf5(path)
    find = _zip_weights if is_zip else _hdf5_weights
    reader = WeightReader(path)

    def weights(name: str, class_name: str, k: int) -> list[Array]:
        with _damage_refused(path):
            return find(reader, content, name, class_name, k)

    with content:
        yield ModelFile(path, configuration, keras_major, weights)


def _head(path: Path) -> bytes:
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise _refused(path, "is a directory (a SavedModel?)", WAY_OUT)
        if not stat.S_ISREG(found.st_mode):
            raise _refused(path, "is not a regular file", "copy the model into one")
        if found.st_size > FILE_BYTES_MAX:
            raise _refused(path, f"is larger than {FILE_BYTES_MAX >> 20} MiB", "serve a smaller model")
        with path.open("rb") as file:
            return file.read(8)
    except FileNotFoundError as error:
        raise _refused(path, "does not exist", "set model.path to a trained .keras or .h5 file") from error
    except OSError as error:
        raise _refused(path, f"cannot be read ({error.strerror})", "check the path and its permissions") from error


def _refused(path: Path, what: str, way_out: str) -> ModelNotStreamable:
    return ModelNotStreamable(f"{path} {what}", way_out)


_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
    *(KeyError, ValueError, TypeError, RuntimeError, OverflowError),
)
"""What zipfile, zlib, json and h5py raise on damaged bytes."""


@contextmanager
def _damage_refused(path: Path) -> Iterator[None]:
    """What damaged bytes raise, as the refusal of this file."""
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise _refused(path, f"is damaged or incomplete ({reason})", WAY_OUT) from error


def _read_zip(path: Path) -> tuple[dict[str, Any], int, Any]:
    with zipfile.ZipFile(path) as archive:
        metadata = _json_object(path, "metadata.json", _member(path, archive, "metadata.json"))
        configuration = _json_object(path, "config.json", _member(path, archive, "config.json"))
        weights = h5py.File(io.BytesIO(_member(path, archive, "model.weights.h5")), "r")
    return configuration, _major(metadata.get("keras_version")), weights


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        member = archive.getinfo(name)
    except KeyError as error:
        raise _refused(path, f"is a zip without {name}", WAY_OUT) from error
    bound = WEIGHT_BYTES_MAX if name.endswith(".h5") else CONFIGURATION_BYTES_MAX
    if member.file_size > bound or member.file_size > INFLATION_MAX * member.compress_size:
        raise _refused(path, f"declares {name} of {member.file_size} bytes", WAY_OUT)
    return archive.read(member)


def _json_object(path: Path, name: str, text: str | bytes) -> dict[str, Any]:
    value = json.loads(text)
    level = [value]
    for _ in range(NESTING_MAX):
        nested = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [child for children in nested for child in children]
    if level or not isinstance(value, dict):
        raise _refused(path, f"has a {name} that is no configuration of a model", WAY_OUT)
    return value


def _zip_weights(reader: WeightReader, content: Any, name: str, class_name: str, k: int) -> list[Array]:
    """Groups are numbered by class in model order; Keras 2.12 names their parent differently and skips numbers."""
    root = "layers" if "layers" in content else "_layer_checkpoint_dependencies"
    groups = reader.descend(content, root, name)
    pattern = re.compile(rf"{_snake_case(class_name)}(?:_(\d{{1,6}}))?")
    numbered = sorted((int(match.group(1) or 0), found) for found in groups if (match := pattern.fullmatch(found)))
    if k >= len(numbered):
        return []
    group = reader.descend(groups, numbered[k][1], name)
    holder = "cell/vars" if "cell" in group else "vars"
    if holder == "vars" and "vars" not in group:
        return []
    variables = reader.descend(group, holder, name)
    return reader.arrays(variables, sorted(variables, key=int), name)


def _read_hdf5(path: Path) -> tuple[dict[str, Any], int, Any]:
    content = h5py.File(path, "r")
    raw = attribute(content, "model_config")
    if raw is None:
        raise _refused(path, "holds weights but no architecture", "save the whole model with model.save('model.keras')")
    configuration = _json_object(path, "model_config", raw if isinstance(raw, bytes) else str(raw))
    return configuration, _major(attribute(content, "keras_version")), content


def _hdf5_weights(reader: WeightReader, content: Any, name: str, class_name: str, k: int) -> list[Array]:
    del class_name, k
    root = reader.descend(content, "model_weights", name)
    if name not in root:
        return []
    group = reader.descend(root, name, name)
    stored = attribute(group, "weight_names", ARRAYS_MAX)
    names = [] if stored is None else [each.decode() if isinstance(each, bytes) else str(each) for each in stored]
    return reader.arrays(group, names, name)


def _major(version: Any) -> int:
    """Files of Keras 2.2 and earlier do not always say; those of Keras 3 do."""
    text = version.decode(errors="replace") if isinstance(version, bytes) else str(version or "")
    match = re.match(r"(\d{1,3})\.", text)
    return int(match.group(1)) if match else 2


def _snake_case(class_name: str) -> str:
    """Keras' own rule for group names: SimpleRNN → simple_rnn, LSTM → lstm."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
