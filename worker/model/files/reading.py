"""One reader for all model files, by content and not by name.

Only JSON and plain numeric arrays are read. Links, external storage and sizes beyond the bounds are refused before
anything is allocated; nothing in a file is executed.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from worker.model.files.generation import keras_major
from worker.model.files.keras_hdf5 import Hdf5Weights, check_hdf5_used, read_hdf5
from worker.model.files.keras_zip import MEMBERS, SHARDS_WAY_OUT, check_zip_used, read_zip, zip_weights
from worker.model.files.legacy import keras_3_vocabulary, plain_weights
from worker.model.files.places import places_of
from worker.model.files.refusal import OTHER_KINDS, SAVED_MODEL_WAY_OUT, damage_refused, refused
from worker.model.files.safetensors import is_safetensors
from worker.model.files.torch_stack import TORCH_WAY_OUT, read_torch_stack
from worker.model.files.weights import WAY_OUT, WEIGHT_BYTES_MAX, Array, WeightReader

FILE_BYTES_MAX = 2 * WEIGHT_BYTES_MAX
HEAD_BYTES = 512
SHARDS = b'"weight_map"'
"""A key of `model.weights.json`, which Keras 3 writes for weights in several files."""
ZIP, HDF5 = b"PK", b"\x89HDF\r\n\x1a\n"


@dataclass(slots=True)
class ModelFile:
    """`configuration` is the model's `{"class_name", "config"}` in the words of Keras 3; see `legacy.py`.

    `weights(layer name, class name, k)` are the arrays of a layer as the class in `configuration` keeps them, trained
    ones first; none where the file has none. A layer of a nested model is called `outer/inner`. `k`, the number of the
    layer among those of its class, is not needed for files. `keras_major` is the generation that wrote the file.
    """

    path: Path
    configuration: dict[str, Any]
    keras_major: int
    weights: Callable[[str, str, int], list[Array]]
    way_out: str = WAY_OUT
    """Where it does not hold what it should."""
    check_used: Callable[[], None] = lambda: None
    """Raises ModelNotStreamable for weights of a layer that the configuration does not have."""


@contextmanager
def open_model_file(path: Path, architecture: Path | None = None) -> Iterator[ModelFile]:
    """`architecture`: the JSON of a file that holds only weights; by default the one of the same name beside it.

    Raises ModelNotStreamable with the file, what is wrong, and the way out; `weights` does too.
    """
    head, file_bytes = _head(path)
    if is_safetensors(head, file_bytes):
        yield _torch_file(path, architecture)
        return
    if not head.startswith((ZIP, HDF5)):
        if head.lstrip().startswith(b"{") and SHARDS in head:
            raise refused(path, "lists the parts of a model's weights", SHARDS_WAY_OUT)
        for start, at, what, way_out in OTHER_KINDS:
            if head[at : at + len(start)] == start or head.lstrip().startswith(start):
                raise refused(path, what, way_out)
        raise refused(path, "is neither a .keras zip nor an HDF5 file nor .safetensors" if head else "is empty")
    is_zip = head.startswith(ZIP)
    with damage_refused(path):
        configuration, version, content = read_zip(path) if is_zip else read_hdf5(path, architecture)
    with closing(content):
        with damage_refused(path):
            major = keras_major(path, version, configuration)
            file = _keras_file(path, configuration, major, is_zip, content)
        yield file


def _keras_file(path: Path, configuration: dict[str, Any], major: int, is_zip: bool, content: Any) -> ModelFile:
    vocabulary = keras_3_vocabulary(path, configuration, major)
    places = places_of(configuration)
    reader = WeightReader(path, major)
    find = partial(zip_weights, reader, content) if is_zip else Hdf5Weights(reader, content, places.values())
    check_used = check_zip_used if is_zip else check_hdf5_used

    def weights(name: str, class_name: str, k: int) -> list[Array]:
        del class_name, k
        if name not in places:
            return []
        with damage_refused(path):
            return plain_weights(places[name].class_name, find(places[name]))

    def checked() -> None:
        with damage_refused(path):
            check_used(reader, content, places.values())

    return ModelFile(path, vocabulary, major, weights, check_used=checked)


def _torch_file(path: Path, architecture: Path | None) -> ModelFile:
    with damage_refused(path):
        stack = read_torch_stack(path, WeightReader(path), architecture)

    def weights(name: str, class_name: str, k: int) -> list[Array]:
        del class_name, k
        with damage_refused(path):
            return stack.weights(name)

    return ModelFile(path, stack.configuration, 3, weights, TORCH_WAY_OUT)


def _head(path: Path) -> tuple[bytes, int]:
    """The first bytes and the size."""
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise _refused_directory(path)
        if not stat.S_ISREG(found.st_mode):
            raise refused(path, "is not a regular file", "copy the model into one")
        if found.st_size > FILE_BYTES_MAX:
            raise refused(path, f"is larger than {FILE_BYTES_MAX >> 20} MiB", "serve a smaller model")
        with path.open("rb") as file:
            return file.read(HEAD_BYTES), found.st_size
    except FileNotFoundError as error:
        raise refused(path, "does not exist", "name a trained .keras or .h5 file") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise refused(path, f"cannot be read ({reason})", "check the path and its permissions") from error


def _refused_directory(path: Path) -> Exception:
    if any((path / f"saved_model.{end}").is_file() for end in ("pb", "pbtxt")):
        what = "is a directory with a SavedModel, a graph of operations without layers"
        return refused(path, what, SAVED_MODEL_WAY_OUT)
    if all((path / name).is_file() for name in MEMBERS):
        return refused(path, "is a directory with the parts of a .keras file", f"zip them: {', '.join(MEMBERS)}")
    return refused(path, "is a directory", "give the model's .keras or .h5 file")
