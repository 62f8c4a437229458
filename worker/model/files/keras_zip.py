"""`.keras` zips of Keras 3 and of tf.keras 2.12 and later: `metadata.json`, `config.json`, `model.weights.h5`.

The layout of the weights is that of `saving_lib.py`, also of `*.weights.h5` files: one group for each layer, called
after its class and numbered by class in the order of the model, with arrays `vars/0`, `vars/1`, … in it or in a child.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import h5py

from worker.model.files.json_text import JSON_BYTES_MAX, json_object
from worker.model.files.places import Cell, Place, Step, snake_case
from worker.model.files.refusal import SAVED_MODEL_WAY_OUT, refused
from worker.model.files.weights import ARRAYS_MAX, WAY_OUT, WEIGHT_BYTES_MAX, Array, WeightReader

INFLATION_MAX = 100
"""Of a zip member against its compressed size; trained weights hardly compress at all."""
DIRECTORY_BYTES_MAX = 1 << 20
"""Of the zip's list of members, all of which are held in memory; Keras writes three, and perhaps some assets."""
MEMBERS = ("metadata.json", "config.json", "model.weights.h5")
ENCRYPTED = 1
"""A flag of a zip member."""
TORCH_WAY_OUT = "save its state_dict with safetensors.torch.save_file, and name its layers in a JSON beside it"
OTHER_ZIPS = (
    ("/data.pkl", "is a PyTorch checkpoint, whose pickles are code that is not executed", TORCH_WAY_OUT),
    ("saved_model.pb", "is a zip of a SavedModel, a graph of operations without layers", SAVED_MODEL_WAY_OUT),
    ("/model.weights.h5", "is a zip of a folder with a model's parts", "zip the parts themselves, without the folder"),
    (".keras", "is a zip that holds {name!r}", "unpack it with unzip"),
    (".h5", "is a zip that holds {name!r}", "unpack it with unzip"),
    (".hdf5", "is a zip that holds {name!r}", "unpack it with unzip"),
    (".npy", "is a zip of arrays of NumPy and not a model", WAY_OUT),
)
"""What zips without any of these are: the end of a member's name, what it tells, the way out."""
SHARDS_WAY_OUT = "save the model in one file, without max_shard_size"
UNUSED = ("belong to no layer of its architecture", "give the architecture that they were saved with")
SHARED_WAY_OUT = "save it with model.save('model.h5')"
ROOTS = ("layers", "_layer_checkpoint_dependencies")
"""What Keras calls the group of all layers; the second is that of 2.12."""
PROJECTIONS = {"query_dense": 1, "key_dense": 2, "value_dense": 3, "output_dense": 4}
"""Layers within an attention layer, in the order of its weights, in which HDF5 files of `model.save` have them."""
DEPTH_MAX = 5
"""From a layer's group down to its arrays: RNN / cell / cells / lstm_cell / vars."""


def read_zip(path: Path) -> tuple[dict[str, Any], Any, Any]:
    """(configuration, the version of Keras, opened weights)."""
    _check_directory(path)
    with zipfile.ZipFile(path) as archive:
        _check_members(path, archive.infolist())
        metadata = json_object(path, "metadata.json", _member(path, archive, "metadata.json"))
        configuration = json_object(path, "config.json", _member(path, archive, "config.json"))
        weights = h5py.File(io.BytesIO(_member(path, archive, "model.weights.h5")), "r")
    return configuration, metadata.get("keras_version"), weights


def zip_weights(reader: WeightReader, content: Any, place: Place) -> list[Array]:
    """The arrays of one layer, none where the file has none."""
    layer = place.steps[-1].name
    model = _model(reader, content, place)
    group = None if model is None else _below(reader, model, content, place, place.steps[-1])
    return [] if group is None else reader.arrays(group, _variables(reader, group, place, layer), layer)


def _model(reader: WeightReader, content: Any, place: Place) -> Any:
    """The group of the model that a layer is in, None where it lies in that of another model."""
    group = content
    for step in place.steps[:-1]:
        group = None if group is None else _below(reader, group, content, place, step)
    return group


def _below(reader: WeightReader, group: Any, content: Any, place: Place, step: Step) -> Any:
    """The group of a layer in that of its model, None where it lies in that of another model."""
    root = next((root for root in ROOTS if root in group), ROOTS[0])
    if group is not content and root not in group:
        return None  # all its layers are in other models
    layer = place.steps[-1].name
    return _numbered(reader, reader.descend(group, root, layer), place, step, layer)


def check_zip_used(reader: WeightReader, content: Any, places: Iterable[Place]) -> None:
    """Raises ModelNotStreamable for the weights of a layer that the configuration does not have.

    Those of the optimizer, of metrics and of random numbers do not lie among the layers.
    """
    models: dict[tuple[Step, ...], tuple[Place, Counter[str]]] = {}
    for place in dict.fromkeys(places):
        _, totals = models.setdefault(place.steps[:-1], (place, Counter()))
        totals[snake_case(place.class_name)] += 1
    for place, totals in models.values():
        group = _model(reader, content, place)
        root = next((root for root in ROOTS if group is not None and root in group), None)
        groups = None if root is None else reader.descend(group, root, "")
        for class_name, names in _numbers(reader, groups).items() if root else ():
            is_numbered = class_name not in totals and re.sub(r"_\d{1,6}$", "", class_name) in totals
            for name in [] if is_numbered else list(names.values())[totals[class_name] :]:
                if _variables(reader, reader.descend(groups, name, name), place, name):
                    raise reader.refused(name, *UNUSED)


def _check_directory(path: Path) -> None:
    """Raises ModelNotStreamable where the list of members is too long to be read into memory."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - (1 << 16) - 22))
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    directory_bytes = int.from_bytes(tail[end + 12 : end + 16], "little") if end >= 0 else 0
    if directory_bytes > DIRECTORY_BYTES_MAX or tail.rfind(b"PK\x06\x07") >= 0:
        raise refused(path, f"is a zip with more than {DIRECTORY_BYTES_MAX >> 20} MiB of member names")


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raises ModelNotStreamable for other files in a zip, saying what they are, and for members that are ambiguous."""
    names = [member.filename for member in members]
    if not set(MEMBERS) & set(names):
        for end, what, way_out in OTHER_ZIPS:
            found = next((name for name in names if name.endswith(end)), None)
            if found is not None:
                raise refused(path, what.format(name=found[:60]), way_out)
    for name in MEMBERS:
        if names.count(name) > 1:
            raise refused(path, f"has {name} twice")
    if any(member.flag_bits & ENCRYPTED for member in members if member.filename in MEMBERS):
        raise refused(path, "is encrypted", "unpack it and pack it again without a password")


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        member = archive.getinfo(name)
    except KeyError as error:
        if "model.weights.json" in archive.namelist():
            raise refused(path, "has its weights in several parts", SHARDS_WAY_OUT) from error
        raise refused(path, f"is a zip without {name}") from error
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # zipfile inflates the other methods without a bound.
        raise refused(path, f"has {name} compressed by method {member.compress_type}")
    bound = WEIGHT_BYTES_MAX if name.endswith(".h5") else JSON_BYTES_MAX
    if member.file_size > bound or member.file_size > INFLATION_MAX * member.compress_size:
        raise refused(path, f"declares {name} of {member.file_size} bytes")
    with archive.open(member) as stream:
        # Without a length, zipfile inflates what there is and not what is declared.
        return stream.read(member.file_size)


def _numbered(reader: WeightReader, groups: Any, place: Place, step: Step, layer: str) -> Any:
    """The group of the layer, None where it lies in that of another model.

    Of its class it is the k-th by number, since Keras 2.12 skips numbers, where all are there. A layer that is in two
    models is in the first one only: Keras 3 leaves out its number, Keras 2 counts on without it.
    """
    numbered = _numbers(reader, groups).get(snake_case(step.class_name), {})
    name: str | None = None
    if len(numbered) >= step.total:
        name = _nth(numbered, step.number)
    elif reader.keras_major >= 3:
        name = numbered.get(step.number)
    elif len(numbered) == step.total_new:
        name = None if step.number_new is None else _nth(numbered, step.number_new)
    elif any(_variables(reader, reader.descend(groups, each, layer), place, layer) for each in numbered.values()):
        raise reader.refused(layer, "may be those of another model, which the file does not say", SHARED_WAY_OUT)
    return None if name is None else reader.descend(groups, name, layer)


def _nth(numbered: dict[int, str], number: int) -> str:
    return next(islice(numbered.values(), number, None))


def _numbers(reader: WeightReader, groups: Any) -> dict[str, dict[int, str]]:
    """Class as Keras writes it → number → name of the group. `dense_1` is the second Dense, or the first `dense_1`."""
    if groups.id in reader.numbered:
        return reader.numbered[groups.id]
    found: dict[str, dict[int, str]] = {}
    for name in reader.children(groups):
        found.setdefault(name, {})[0] = name
        match = re.fullmatch(r"(.+)_(\d{1,6})", name)
        if match:
            found.setdefault(match.group(1), {})[int(match.group(2))] = name
    ordered = {class_name: dict(sorted(names.items())) for class_name, names in found.items()}
    return reader.numbered.setdefault(groups.id, ordered)


def _variables(reader: WeightReader, group: Any, place: Place, layer: str, at: str = "", depth: int = 0) -> list[str]:
    """Paths of the arrays, a group's own before those of its children. HDF5 groups may contain themselves."""
    if depth > DEPTH_MAX:
        raise ValueError("groups are nested too deep")
    children = reader.children(group)
    found: list[str] = []
    if "vars" in children:
        own = reader.children(reader.descend(group, "vars", layer))
        found = [f"{at}vars/{each}" for each in sorted(own, key=int)]
    last = at.removesuffix("/").rpartition("/")[2]
    for child in _in_order(children, place.cells if last == "cells" else ()):
        below = reader.descend(group, child, layer)
        found += _variables(reader, below, place, layer, f"{at}{child}/", depth + 1)
        if len(found) > ARRAYS_MAX:
            break
    return found


def _in_order(children: list[str], cells: tuple[Cell, ...]) -> list[str]:
    """Stacked cells are numbered by class, so their order is only in the configuration. Seeds are no weights."""
    if not cells:
        found = [each for each in children if each != "vars" and not each.startswith("seed_generator")]
        return sorted(found, key=lambda each: (PROJECTIONS.get(each.removeprefix("_"), 0), each))
    ordered, numbers = [], Counter[str]()
    for class_name in [cell.class_name for cell in cells]:
        number = numbers[class_name]
        numbers[class_name] += 1
        ordered.append(snake_case(class_name) + (f"_{number}" if number else ""))
    return ordered
