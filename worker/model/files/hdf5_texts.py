"""Texts of an HDF5 file, looked at before HDF5 reads them: it does not stop at damage, nor ask whether lengths agree.

They lie in collections of the global heap: `GCOL`, version 1, three zeros, size; then objects of index, references,
four zeros and size, their data padded to eight bytes; index 0 is the space that is free, its size with the header. An
attribute has a text as length, collection and index. All this and object headers are of the file format specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import h5py

Content = bytes | mmap
Heap = dict[tuple[int, int], int]
"""Collection and index → bytes of a text."""
SIGNATURE = b"GCOL\x01\0\0\0"
HEADER_BYTES = 16
COLLECTION_BYTES_MIN = 4096
TEXTS_MAX = 1 << 16
"""Of a whole file; a layer has a few."""
GROUPS_MAX = 4096
STALE_MAX = 16
MESSAGES_MAX = 1 << 18
"""Of all objects; a layer's group has about ten."""
DAMAGED = "its texts are stored in a heap that is damaged"
_OBJECT = struct.Struct("<H6xQ")
_REFERENCE = struct.Struct("<IQI")
_ATTRIBUTE, _CONTINUATION = 12, 16
_VARIABLE_TEXT = (9, 1)
"""Class of a data type and what kind of it: of variable length, text."""


def open_checked(path: Path) -> Any:
    """The file, opened by h5py, whose groups have no text that HDF5 would not come back from.

    Raises ValueError, and what h5py raises on damaged bytes.
    """
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        heap = read_heap(content)
        with ExitStack() as closed_unless_checked:
            opened = closed_unless_checked.enter_context(h5py.File(path, "r"))
            left = MESSAGES_MAX
            for address in sorted(set(_groups_with_texts(opened))):
                left -= check_texts(content, address, heap, left)
            closed_unless_checked.pop_all()
    return opened


def _groups_with_texts(opened: Any) -> Iterator[int]:
    """Addresses of the groups of which attributes are read: the root, those in it, and those of the layers."""
    yield h5py.h5o.get_info(opened.id).addr
    for root in (opened, opened.get("model_weights", getlink=False)):
        for name in root if isinstance(root, h5py.Group) and len(root) <= GROUPS_MAX else ():
            if isinstance(root.get(name, getlink=True), h5py.HardLink):
                yield h5py.h5o.get_info(root[name].id).addr


def read_heap(content: Content) -> Heap:
    """Raises ValueError where an object leaves its collection or does not lead to a next one."""
    found: Heap = {}
    at, stale = content.find(SIGNATURE), 0
    while at >= 0:
        end = at + int.from_bytes(content[at + 8 : at + HEADER_BYTES], "little")
        sound = at + COLLECTION_BYTES_MIN <= end <= len(content)
        for index, size in _objects(content, at + HEADER_BYTES, end) if sound else ():
            sound = size >= 0
            found[at, index] = size
            if len(found) > TEXTS_MAX:
                raise ValueError(f"it has more than {TEXTS_MAX} texts")
        # What was deleted stays where it lay until something else is written there, and nothing refers to it.
        stale += not sound
        if not sound and (stale > STALE_MAX or content.find(struct.pack("<Q", at)) >= 0):
            raise ValueError(DAMAGED)
        at = content.find(SIGNATURE, end if sound else at + 1)
    return found


def _objects(content: Content, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Index and size of each object of a collection, the last one of size -1 where it cannot be."""
    while end - at >= HEADER_BYTES:
        index, size = _OBJECT.unpack_from(content, at)
        step = HEADER_BYTES + (size + 7) // 8 * 8 if index else size
        if not HEADER_BYTES <= step <= end - at:
            yield index, -1
            return
        yield index, size
        at += step


def check_texts(content: Content, address: int, heap: Heap, messages_max: int = MESSAGES_MAX) -> int:
    """How many messages the header of the object at `address` has.

    Raises ValueError where a text that is an attribute of it is not what the heap has, and beyond `messages_max`.
    """
    count = 0
    for count, (kind, at, size) in enumerate(_messages(content, address), 1):
        if count > messages_max:
            raise ValueError("its objects have too many parts")
        if kind == _ATTRIBUTE:
            for length, collection, index in _texts(content[at : at + size]):
                if collection and heap.get((collection, index)) != length:
                    raise ValueError(DAMAGED)
    return count


def _texts(attribute: bytes) -> Iterator[tuple[int, int, int]]:
    """Length, collection and index of each text of variable length of an attribute."""
    version, name, data_type, space = struct.unpack_from("<BxHHH", attribute)
    sizes = [name, data_type, space] if version > 1 else [-(-size // 8) * 8 for size in (name, data_type, space)]
    at = 9 if version > 2 else 8
    kind = attribute[at + sizes[0] : at + sizes[0] + 2]
    if len(kind) == 2 and (kind[0] & 15, kind[1] & 15) == _VARIABLE_TEXT:
        for start in range(at + sum(sizes), len(attribute) - _REFERENCE.size + 1, _REFERENCE.size):
            yield _REFERENCE.unpack_from(attribute, start)


def _messages(content: Content, address: int) -> Iterator[tuple[int, int, int]]:
    """Kind, start and size of what an object header holds, of its version 1 or 2."""
    is_new = content[address : address + 4] == b"OHDR"
    header, blocks = _new_header(content, address) if is_new else ("<HH4x", _block(content, address + 16, address + 8))
    for at, end in blocks:
        while end - at >= struct.calcsize(header):
            kind, size = struct.unpack_from(header, content, at)
            at += struct.calcsize(header)
            if size > end - at:
                raise ValueError("an object in it is damaged")
            if kind == _CONTINUATION and size >= 16:
                start, length = struct.unpack_from("<QQ", content, at)
                # Of version 2 with a signature before and a checksum behind.
                blocks.append((start + 4, start + length - 4) if is_new else (start, start + length))
            yield kind, at, size
            at += size


def _block(content: Content, start: int, size_at: int, size_bytes: int = 4) -> list[tuple[int, int]]:
    return [(start, start + int.from_bytes(content[size_at : size_at + size_bytes], "little"))]


def _new_header(content: Content, address: int) -> tuple[str, list[tuple[int, int]]]:
    flags = content[address + 5]
    at = address + 6 + 16 * bool(flags & 32) + 4 * bool(flags & 16)
    size_bytes = 1 << (flags & 3)
    return "<BHx2x" if flags & 4 else "<BHx", _block(content, at + size_bytes, at, size_bytes)
