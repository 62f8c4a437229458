"""The one line with which a file is refused."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import ModelNotStreamable
from worker.model.files.weights import WAY_OUT

SAVED_MODEL_WAY_OUT = "load it with the Keras that wrote it and save it with model.save('model.h5')"
GRAPH_WAY_OUT = "give the .keras, .h5 or .safetensors file that it was converted from"
OTHER_KINDS = (
    (b"\x80", 0, "is a pickle, which is code that is not executed", WAY_OUT),
    (b"\x1f\x8b", 0, "is compressed by gzip", "unpack it with gunzip"),
    (b"BZh", 0, "is compressed by bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ", 0, "is compressed by xz", "unpack it with unxz"),
    (b"7z\xbc\xaf", 0, "is a 7z archive", "unpack it with 7z x"),
    (b"ustar", 257, "is a tar archive", "unpack it with tar -xf"),
    (b"version https://git-lfs", 0, "is a Git LFS pointer and not the model", "fetch it with `git lfs pull`"),
    (b"{", 0, "is JSON", "give the file of weights; its architecture is looked for in the JSON of the same name"),
    (b"\x93NUMPY", 0, "is an array of NumPy and not a model", WAY_OUT),
    (b"TFL3", 4, "is a TensorFlow Lite model, a graph of operations without layers", GRAPH_WAY_OUT),
    (b"\x08\x01\x12", 0, "is the graph of a SavedModel, of operations without layers", SAVED_MODEL_WAY_OUT),
    *((bytes((8, version)), 0, "is an ONNX model, a graph of operations", GRAPH_WAY_OUT) for version in range(3, 17)),
    (b"<", 0, "is a web page or XML and not the model", "download the file itself"),
)
"""What people mistake for a model: bytes, where they lie, what they tell, the way out."""
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError),
    *(KeyError, IndexError, ValueError, TypeError, RuntimeError, OverflowError, struct.error),
)
"""What zipfile, zlib, json, h5py and the walk through HDF5's headers raise on damaged bytes."""


def refused(path: Path, what: str, way_out: str = WAY_OUT) -> ModelNotStreamable:
    """The error that names the file."""
    return ModelNotStreamable(f"{path} {what}", way_out)


@contextmanager
def damage_refused(path: Path) -> Iterator[None]:
    """What damaged bytes raise, as the refusal of this file."""
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise refused(path, f"is damaged or incomplete ({reason})") from error
