"""Texts of HDF5 files damaged by a bit or a length: HDF5 itself does not come back, or takes the process along."""

from __future__ import annotations

import struct
import subprocess
import sys

import h5py
import pytest

from tests.unit.model.hostile_files import HDF5
from worker.model.files.hdf5_texts import HEADER_BYTES, SIGNATURE, check_texts, open_checked, read_heap
from worker.model.load import load_program

LOAD_ALL = """
import pathlib, sys
from worker.errors import ModelNotStreamable
from worker.model.load import load_program
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.h5")):
    try:
        load_program(path)
    except ModelNotStreamable as error:
        print(f"{path.stem}: {error}", flush=True)
    else:
        print(f"{path.stem}: read", flush=True)
"""
TEXT_TYPE = bytes.fromhex("1901010010000000")
"""A data type of variable length, of texts, of 16 bytes; so the attributes `keras_version` and `model_config` begin."""


def mutants() -> dict[str, bytes]:
    """By what was done to them."""
    content = HDF5.read_bytes()
    heap = content.index(SIGNATURE)
    sizes = {index: at for index, at in objects_of(content, heap).items() if index}
    free = objects_of(content, heap)
    config = struct.pack("<QI", heap, 3)
    length = content.index(config) - 4
    texts = content.index(TEXT_TYPE)
    found = {
        f"one_bit_{bit}_of_the_size_of_text_{index}": with_bit(content, sizes[index] + 8 + bit // 8, bit % 8)
        for index in (1, 3)
        for bit in (0, 13, 31, 62, 63)
    }
    found |= {
        "a_collection_that_ends_before_it_begins": with_bytes(content, heap + 8, bytes(8)),
        "free_space_of_no_size": with_bytes(content, max(free.values()), bytes(16)),
        "a_type_that_is_none": with_bit(content, texts + 1, 3),
    }
    for declared in (0, 1, 5000, 2**31 - 1, 2**32 - 1):
        found[f"a_text_that_declares_{declared}_bytes"] = with_bytes(content, length, struct.pack("<I", declared))
    return found


def objects_of(content: bytes, collection: int) -> dict[int, int]:
    """Index → where the object begins."""
    at, found = collection + HEADER_BYTES, {}
    end = collection + int.from_bytes(content[collection + 8 : at], "little")
    while end - at >= HEADER_BYTES:
        index, size = struct.unpack_from("<H6xQ", content, at)
        found[index] = at
        at += HEADER_BYTES + -(-size // 8) * 8 if index else size
    return found


def with_bytes(content: bytes, at: int, changed: bytes) -> bytes:
    return content[:at] + changed + content[at + len(changed) :]


def with_bit(content: bytes, at: int, bit: int) -> bytes:
    return with_bytes(content, at, bytes([content[at] ^ 1 << bit]))


def test_a_damaged_text_is_refused_in_one_line_where_hdf5_does_not_come_back(tmp_path):
    made = mutants()
    for name, content in made.items():
        (tmp_path / f"{name}.h5").write_bytes(content)

    command = [sys.executable, "-c", LOAD_ALL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stdout[-300:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(made)
    assert all("is damaged or incomplete" in line for line in lines), lines


@pytest.mark.parametrize("version", ["earliest", "v108", "latest"])
def test_a_file_whose_texts_were_replaced_is_read_whatever_their_layout(version, tmp_path):
    path = tmp_path / "model.h5"
    with h5py.File(HDF5) as original, h5py.File(path, "w", libver=(version, "latest")) as copy:
        for name, value in original.attrs.items():
            copy.attrs[name] = value
        for name in original:
            original.copy(name, copy)
        copy.attrs["model_config"] = original.attrs["model_config"] + " " * 5000
        copy.attrs["model_config"] = original.attrs["model_config"]

    assert load_program(path).fingerprint == load_program(HDF5).fingerprint


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_every_length_of_an_attribute_is_compared_with_the_heap(version, tmp_path):
    path = tmp_path / "texts.h5"
    with h5py.File(path, "w", libver=version) as file:
        file.attrs["names"] = ["a", "bc", ""]
    content = path.read_bytes()
    with open_checked(path) as file:
        address = h5py.h5o.get_info(file.id).addr

    heap = read_heap(content)

    check_texts(content, address, heap)
    texts = [each for each, size in heap.items() if each[1] and size in (1, 2)]
    assert len(texts) == 2
    for text in texts:
        with pytest.raises(ValueError, match="damaged"):
            check_texts(content, address, heap | {text: 3})


@pytest.mark.parametrize("more", [b"", bytes(8 << 18)], ids=["a continuation that is itself", "empty messages"])
def test_an_object_header_without_end_is_refused(more):
    header = struct.pack("<BxHIi4x", 1, 1, 1, 24 + len(more))
    continuation = struct.pack("<HH4xQQ", 16, 16, len(header), 24)

    with pytest.raises(ValueError, match="too many parts"):
        check_texts(header + continuation + more, 0, {})
