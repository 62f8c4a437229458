"""HDF5 datasets that are stored in chunks, compressed or not, within bounds.

HDF5's own filters inflate a chunk as far as its bytes go, whatever size it declares, so chunks are inflated here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

CHUNKS_MAX = 1 << 14
"""Of one array; writers choose chunks of some ten thousand numbers or more."""
CHUNK_BYTES_MAX = 64 << 20
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_CHECKSUM_BYTES = 4
_SLACK_BYTES = 1 << 10
"""By which the compressed form of incompressible bytes may be longer than they are."""


def is_filtered(dataset: Any) -> bool:
    """Whether the bytes in the file are not the numbers themselves."""
    return bool(dataset.id.get_create_plist().get_nfilters())


def check_chunks(dataset: Any) -> None:
    """Raises ValueError where there are too many chunks, or too large ones, to read one after the other."""
    if dataset.chunks is None:
        return
    if prod(len(steps) for steps in _grid(dataset)) > CHUNKS_MAX:
        raise ValueError(f"an array declares more than {CHUNKS_MAX} chunks")
    if prod(dataset.chunks) * dataset.dtype.itemsize > CHUNK_BYTES_MAX:
        raise ValueError(f"an array declares chunks of more than {CHUNK_BYTES_MAX >> 20} MiB")


def read_filtered(dataset: Any) -> npt.NDArray[Any]:
    """The array, inflated chunk by chunk. Call `check_chunks` first; `dataset.size` numbers are allocated.

    Raises ValueError for filters other than gzip, shuffle and checksums, for missing chunks, and for chunks that hold
    more or fewer bytes than declared.
    """
    filters = list(_filters(dataset))
    values = np.empty(dataset.shape, dataset.dtype)
    for offset in product(*_grid(dataset)):
        chunk = _chunk(dataset, offset, filters)
        region = tuple(
            slice(start, min(start + size, end))
            for start, size, end in zip(offset, dataset.chunks, dataset.shape, strict=True)
        )
        values[region] = chunk[tuple(slice(0, part.stop - part.start) for part in region)]
    return values


def _grid(dataset: Any) -> list[range]:
    return [range(0, end, size) for end, size in zip(dataset.shape, dataset.chunks, strict=True)]


def _filters(dataset: Any) -> Iterator[int]:
    properties = dataset.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code = properties.get_filter(number)[0]
        if code not in (_DEFLATE, _SHUFFLE, _FLETCHER32):
            raise ValueError(f"an array is stored with HDF5 filter {code}")
        yield code


def _chunk(dataset: Any, offset: tuple[int, ...], filters: list[int]) -> npt.NDArray[Any]:
    size = prod(dataset.chunks) * dataset.dtype.itemsize
    info = dataset.id.get_chunk_info_by_coord(offset)
    if info.byte_offset is None or not 0 < info.size <= size + size // 1000 + _SLACK_BYTES:
        raise ValueError(f"a chunk of an array holds {info.size} bytes of {size}")
    skipped, stored = dataset.id.read_direct_chunk(offset)
    content = bytes(stored)
    for number, code in reversed(list(enumerate(filters))):
        if skipped & (1 << number):
            continue
        if code == _FLETCHER32:
            content = content[:-_CHECKSUM_BYTES]
        elif code == _DEFLATE:
            # One byte more than is right tells that there is more.
            content = zlib.decompressobj().decompress(content, size + _CHECKSUM_BYTES + 1)
        else:
            content = np.frombuffer(content, np.uint8).reshape(dataset.dtype.itemsize, -1).T.tobytes()
    if len(content) != size:
        raise ValueError(f"a chunk of an array holds other than {size} bytes")
    return np.frombuffer(content, dataset.dtype).reshape(dataset.chunks)
