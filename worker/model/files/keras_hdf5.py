"""HDF5 files of `model.save`, from standalone Keras 2 to Keras 3, and of `save_weights` with the architecture beside.

Layout of `legacy_h5_format.py`: attributes `model_config` and `keras_version`, and groups `model_weights/<layer>` whose
attribute `weight_names` lists the arrays in order; `save_weights` leaves out `model_config` and the first group.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py

from worker.model.files.hdf5_texts import open_checked
from worker.model.files.json_text import json_object, read_bounded
from worker.model.files.keras_zip import ROOTS, UNUSED, check_zip_used, zip_weights
from worker.model.files.places import Place
from worker.model.files.refusal import refused
from worker.model.files.weights import Array, WeightReader, attribute

NAMES_MAX = 4096
"""Arrays of one nested model, which has all its layers in one group."""
NAME_CHUNKS_MAX = 64
PROJECTIONS = ("query", "key", "value", "attention_output")
"""Layers within an attention layer, in the order of its weights."""


def read_hdf5(path: Path, architecture: Path | None = None) -> tuple[dict[str, Any], Any, Any]:
    """(configuration, the version of Keras, opened file).

    For weights alone the configuration is in the JSON `architecture`, or beside them.
    """
    content = open_checked(path)
    raw = attribute(content, "model_config")
    version = attribute(content, "keras_version")
    if raw is not None:
        return json_object(path, "model_config", raw if isinstance(raw, bytes) else str(raw)), version, content
    configuration = _architecture_of(path, architecture or architecture_path(path))
    return configuration, configuration.get("keras_version") or version or _version(configuration), content


def hdf5_weights(reader: WeightReader, content: Any, place: Place) -> list[Array]:
    """The arrays of one layer, none where the file has none."""
    if _is_numbered(content):
        return zip_weights(reader, content, place)
    layer = place.steps[-1].name
    root = _root(reader, content, layer)
    if place.steps[0].name not in root:
        return []
    group = reader.descend(root, place.steps[0].name, layer)
    names = _names(group, "weight_names")
    if len(place.steps) > 1:
        # The arrays of a nested model lie together; which layer one belongs to is part of its name.
        names = [name for name in names if layer in name.split("/")[:-1]]
    return reader.arrays(group, _in_order(reader, names, place), layer)


def check_hdf5_used(reader: WeightReader, content: Any, places: Iterable[Place]) -> None:
    """Raises ModelNotStreamable for the weights of a layer that the configuration does not have."""
    if _is_numbered(content):
        check_zip_used(reader, content, places)
        return
    known = {place.steps[0].name for place in places}
    root = _root(reader, content, "")
    for name in _names(root, "layer_names") if isinstance(root, h5py.Group) else ():
        if name not in known and name in root and _names(reader.descend(root, name, name), "weight_names"):
            raise reader.refused(name, *UNUSED)


def _root(reader: WeightReader, content: Any, layer: str) -> Any:
    return reader.descend(content, "model_weights", layer) if "model_config" in content.attrs else content


def _is_numbered(content: Any) -> bool:
    """Whether the layout is that of `*.weights.h5` files."""
    return "model_weights" not in content and any(root in content for root in ROOTS)


def architecture_path(weights: Path) -> Path:
    """Where the architecture of a file of weights is looked for: `model.weights.h5` → `model.json`."""
    return weights.with_name(re.sub(r"(\.weights)?\.[^.]*$", "", weights.name) + ".json")


def _in_order(reader: WeightReader, names: list[str], place: Place) -> list[str]:
    """Parts of a layer in its own order; the file has those that are not trained after the others."""
    parts = [cell.name for cell in place.cells]
    if place.class_name == "MultiHeadAttention":
        parts = list(PROJECTIONS)
    owners = {name: name.split("/")[-2:-1] for name in names}
    if len(set(parts)) == len(parts) and all(owner and owner[0] in parts for owner in owners.values()):
        return sorted(names, key=lambda name: parts.index(owners[name][0]))
    if len({cell.is_trained for cell in place.cells}) > 1:
        raise reader.refused(
            place.steps[-1].name,
            "do not say which belong to the cells that are not trained",
            "set trainable alike for all cells and save the model again",
        )
    return names


def _architecture_of(path: Path, architecture: Path) -> dict[str, Any]:
    if not architecture.is_file():
        way_out = f"put model.to_json() into {architecture}, or save the whole model with model.save('model.keras')"
        raise refused(path, "holds weights but no architecture", way_out)
    with architecture.open("rb") as file:
        return json_object(architecture, "text", read_bounded(file))


def _version(configuration: dict[str, Any]) -> str | None:
    """The JSON of Keras 2 says its version; that of Keras 3 says the module of each class instead."""
    return "3." if "module" in configuration else None


def _names(group: Any, key: str) -> list[str]:
    """`weight_names` or `layer_names`, none where there is no such attribute."""
    stored = attribute(group, key, NAMES_MAX)
    if stored is None:
        # Beyond 64 KiB, which is all that an attribute may have, the names are split.
        parts = (attribute(group, f"{key}{number}", NAMES_MAX) for number in range(NAME_CHUNKS_MAX))
        stored = [name for part in parts if part is not None for name in part]
    return [each.decode() if isinstance(each, bytes) else str(each) for each in stored]
