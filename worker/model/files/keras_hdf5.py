"""HDF5 files of `model.save`, from standalone Keras 2 to Keras 3, and of `save_weights` with the architecture beside.

Layout of `legacy_h5_format.py`: attributes `model_config` and `keras_version`, and groups `model_weights/<layer>` whose
attribute `weight_names` lists the arrays in order; `save_weights` leaves out `model_config` and the first group.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py

from worker.model.files.hdf5_texts import open_checked
from worker.model.files.json_text import json_object, read_bounded
from worker.model.files.keras_zip import ROOTS, UNUSED, check_zip_used, zip_weights
from worker.model.files.low_rank import merged
from worker.model.files.places import Place
from worker.model.files.refusal import refused
from worker.model.files.weights import Array, WeightReader, attribute

NAMES_MAX = 4096
"""Arrays of one nested model, which has all its layers in one group."""
NAME_CHUNKS_MAX = 64
CLAIMS_MAX = 1 << 17
"""Of layers on arrays of one nested model, by parts of the arrays' names; without repeated names it is one an array."""
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


def architecture_of_weights(path: Path, architecture: Path | None = None) -> dict[str, Any] | None:
    """The configuration beside a file that holds only weights; None for a file that holds a model."""
    if not h5py.is_hdf5(path):
        return None
    configuration, _, content = read_hdf5(path, architecture)
    with closing(content):
        return None if "model_config" in content.attrs else configuration


class Hdf5Weights:
    """The arrays of the layers of one file, `places`, by place."""

    def __init__(self, reader: WeightReader, content: Any, places: Iterable[Place]) -> None:
        self._reader, self._content = reader, content
        self._places: dict[str, list[Place]] = {}
        for place in places:
            self._places.setdefault(place.steps[0].name, []).append(place)
        self._owned: dict[str, dict[Place, list[str]]] = {}
        """The names of a nested model's arrays, by the layer that each belongs to."""

    def __call__(self, place: Place) -> list[Array]:
        """The arrays of one layer, none where the file has none."""
        content, reader = self._content, self._reader
        if _is_numbered(content):
            return zip_weights(reader, content, place)
        outer, layer = place.steps[0].name, place.steps[-1].name
        root = _root(reader, content, layer)
        if outer not in root:
            return []
        group = reader.descend(root, outer, layer)
        if len(place.steps) == 1:
            names = _names(group, "weight_names")
        else:
            # The arrays of a nested model lie together; which layer one belongs to is part of its name.
            if outer not in self._owned:
                self._owned[outer] = owned(_names(group, "weight_names"), self._places[outer])
            names = self._owned[outer].get(place, [])
        names = _in_order(reader, names, place)
        arrays = reader.arrays(group, names, layer)
        try:
            return merged(names, arrays, place.lora_alpha)
        except ValueError as error:
            way_out = "save the model with model.save('model.keras'), which merges it"
            raise reader.refused(layer, str(error), way_out) from error


def owned(names: Iterable[str], places: Iterable[Place]) -> dict[Place, list[str]]:
    """The names of arrays by the layer that each belongs to: the one whose name is in it, after those of the models
    around it, of all of them, and before others. Models that Keras 3 saved and loaded name only what a layer holds.

    Raises ValueError where too many layers have the names that are in those of arrays.
    """
    layers: dict[str, list[Place]] = {}
    holders: dict[str, list[Place]] = {}
    for place in dict.fromkeys(places):
        layers.setdefault(place.steps[-1].name, []).append(place)
        for each in set(place.within):
            holders.setdefault(each, []).append(place)
    found: dict[Place, list[str]] = {}
    compared = 0
    for name in names:
        at: dict[str, int] = {}
        for number, part in enumerate(name.split("/")[:-1]):
            at.setdefault(part, number)
        claims = [claim for part in at for claim in _claims(part, at, layers)]
        claims = claims or [claim for part in at for claim in _claims(part, at, holders)]
        compared += len(claims)
        if compared > CLAIMS_MAX:
            raise ValueError("too many layers of a nested model have one name")
        best = max((claim for claim, _ in claims), default=None)
        for claim, place in claims:
            if claim == best:
                found.setdefault(place, []).append(name)
    return found


def _claims(
    part: str, at: dict[str, int], layers: dict[str, list[Place]]
) -> Iterator[tuple[tuple[int, int, int], Place]]:
    """What speaks for each layer of the name `part`, where the parts of an array's name are `at`."""
    for place in layers.get(part, ()):
        around = [at.get(step.name, len(at)) < at[part] for step in place.steps[:-1]]
        yield (around.count(True), -around.count(False), -at[part]), place


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
