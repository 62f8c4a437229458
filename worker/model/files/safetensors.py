"""The header of a `.safetensors` file and its tensors: 8 bytes of length, JSON, then raw little-endian numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from worker.model.files.json_text import JSON_BYTES_MAX, json_object
from worker.model.files.refusal import refused
from worker.model.files.weights import Array, WeightReader, from_bfloat16

LENGTH_BYTES = 8
TENSORS_MAX = 4096
DIMENSIONS_MAX = 8
WAY_OUT = "write it again with safetensors.torch.save_file(model.state_dict(), path)"
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Of weights."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies: `begin` counts from the start of the file, in bytes."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int


def is_safetensors(head: bytes, file_bytes: int) -> bool:
    """Whether the first nine bytes are a header's length that fits into the file, and the start of its JSON."""
    return len(head) > LENGTH_BYTES and head[8:9] == b"{" and _length(head) + LENGTH_BYTES <= file_bytes


def read_header(path: Path) -> dict[str, Tensor]:
    """Name → tensor. Raises ModelNotStreamable for a header that is too long, and for tensors outside of the file or
    within one another."""
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = _length(file.read(LENGTH_BYTES))
        if length > JSON_BYTES_MAX:
            raise refused(path, f"has a header of {length} bytes, {JSON_BYTES_MAX} are read", WAY_OUT)
        header = json_object(path, "header", file.read(length), WAY_OUT)
    if len(header) > TENSORS_MAX:
        raise refused(path, f"has {len(header)} tensors, {TENSORS_MAX} are read", WAY_OUT)
    start = LENGTH_BYTES + length
    tensors = {
        name: _tensor(path, name, entry, start, file_bytes - start)
        for name, entry in header.items()
        if name != "__metadata__"
    }
    _check_apart(path, tensors)
    return tensors


def read_tensor(path: Path, reader: WeightReader, name: str, tensor: Tensor) -> Array:
    """As float32. Raises ModelNotStreamable beyond the bound of all weights, and where a number is not finite."""
    if tensor.dtype not in _DTYPES:
        raise refused(path, f"has the tensor {name[:60]!r} of dtype {tensor.dtype[:10]!r}", "save the model in float32")
    reader.count(tensor.size, name)
    with path.open("rb") as file:
        file.seek(tensor.begin)
        content = file.read(tensor.size)
    values: Any = np.frombuffer(content, _DTYPES[tensor.dtype])
    if tensor.dtype == "BF16":
        values = from_bfloat16(values)
    return reader.checked(values.reshape(tensor.shape), name)


def _length(head: bytes) -> int:
    return int.from_bytes(head[:LENGTH_BYTES], "little")


def _check_apart(path: Path, tensors: dict[str, Tensor]) -> None:
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].size)):
        if tensor.begin < end:
            raise refused(path, f"declares the tensor {name[:60]!r} where others overlap it", WAY_OUT)
        end = tensor.begin + tensor.size


def _tensor(path: Path, name: str, entry: Any, start: int, data_bytes: int) -> Tensor:
    if not isinstance(entry, dict):
        raise refused(path, f"declares the tensor {name[:60]!r} as no object", WAY_OUT)
    dtype: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not isinstance(dtype, str) or not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise refused(path, f"declares the tensor {name[:60]!r} without dtype, shape and offsets", WAY_OUT)
    begin, end = offsets
    if len(shape) > DIMENSIONS_MAX or not begin <= end <= data_bytes:
        raise refused(path, f"declares the tensor {name[:60]!r} outside of the file", WAY_OUT)
    if dtype in _DTYPES and prod(shape) * np.dtype(_DTYPES[dtype]).itemsize != end - begin:
        raise refused(path, f"declares the tensor {name[:60]!r} of other bytes than its shape has", WAY_OUT)
    return Tensor(dtype, tuple(shape), start + begin, end - begin)


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(each) is int and 0 <= each < 1 << 48 for each in values)
