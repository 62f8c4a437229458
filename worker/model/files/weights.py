"""Arrays out of HDF5: plain, finite, bounded numbers that the file itself holds, or a refusal."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from worker.errors import ModelNotStreamable
from worker.model.files.chunks import check_chunks, is_filtered, read_filtered

WEIGHT_BYTES_MAX = 512 << 20
ARRAYS_MAX = 64
"""Of one layer; stacked cells have three each, other layers at most four."""
GROUP_MEMBERS_MAX = 10_000
LOOKS_MAX = 200_000
"""Names in all groups that are looked through, and LOOK for each of these groups."""
LOOK = 24
ATTRIBUTE_BYTES_MAX = 16 << 20
WAY_OUT = "save the trained model again with model.save('model.keras')"

Array = npt.NDArray[np.float32]


def attribute(holder: Any, name: str, elements_max: int = 1) -> Any:
    """The text or texts of a group's or file's attribute, None where there is none. Raises ValueError beyond
    `elements_max`, and for what is no text.

    What it declares is looked at first: HDF5 does not come back from 2⁴⁸ strings, nor from a type that is none.
    """
    if name not in holder.attrs:
        return None
    declared = holder.attrs.get_id(name)
    elements = prod(declared.shape)
    if elements > elements_max or elements * declared.dtype.itemsize > ATTRIBUTE_BYTES_MAX:
        raise ValueError(f"attribute {name} declares the shape {declared.shape}")
    if h5py.check_string_dtype(declared.dtype) is None and elements:
        raise ValueError(f"attribute {name} is no text")
    return holder.attrs[name] if elements else []


class WeightReader:
    """Reads the arrays of one file; all of them together stay within WEIGHT_BYTES_MAX, whatever the file declares."""

    def __init__(self, path: Path, keras_major: int = 3) -> None:
        self.keras_major = keras_major
        self.numbered: dict[Any, dict[str, dict[int, str]]] = {}
        """Groups in which layers were looked for: class → number → name."""
        self._path = path
        self._looked = 0
        self._bytes = 0

    def arrays(self, group: Any, names: list[str], layer: str) -> list[Array]:
        """Raises ModelNotStreamable; KeyError where a name is missing."""
        if len(names) > ARRAYS_MAX:
            raise self.refused(layer, f"are {len(names)} arrays", WAY_OUT)
        return [self._array(self.descend(group, name, layer), layer) for name in names]

    def descend(self, group: Any, name: str, layer: str) -> Any:
        """What lies under `name`, with slashes, through hard links only: the others lead out of the file."""
        for part in name.split("/"):
            link = group.get(part, getlink=True) if part and isinstance(group, h5py.Group) else None
            if link is None:
                raise KeyError(name)
            if not isinstance(link, h5py.HardLink):
                raise self.refused(layer, "lie behind a link", WAY_OUT)
            group = group[part]
        return group

    def children(self, group: Any) -> list[str]:
        """The names in a group. Raises ValueError beyond LOOKS_MAX: few groups that hold one another have many ways."""
        if not isinstance(group, h5py.Group):
            raise TypeError("an array lies where a group should be")
        self._looked += LOOK + len(group)
        if len(group) > GROUP_MEMBERS_MAX or self._looked > LOOKS_MAX:
            raise ValueError("its groups have too many members")
        return list(group)

    def _array(self, dataset: Any, layer: str) -> Array:
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or not _is_numeric(dataset):
            raise self.refused(layer, "are not arrays of numbers", WAY_OUT)
        if dataset.is_virtual or dataset.external:
            raise self.refused(layer, "lie in another file", WAY_OUT)
        declared = dataset.size * dataset.dtype.itemsize
        self.count(declared, layer)
        check_chunks(dataset)
        numbers = from_bfloat16 if dataset.dtype.kind == "V" else np.asarray
        if is_filtered(dataset):
            return self.checked(numbers(read_filtered(dataset)), layer)
        # A file of a few bytes may declare any shape; Keras stores every number.
        if dataset.id.get_storage_size() < declared:
            raise self.refused(layer, f"declare {dataset.size} numbers and hold fewer", WAY_OUT)
        return self.checked(numbers(dataset[...]), layer)

    def count(self, declared_bytes: int, layer: str) -> None:
        """Before they are read. Raises ModelNotStreamable where all weights together are beyond the bound."""
        self._bytes += declared_bytes
        if self._bytes > WEIGHT_BYTES_MAX:
            raise self.refused(layer, f"need more than {WEIGHT_BYTES_MAX >> 20} MiB", "serve a smaller model")

    def checked(self, values: npt.NDArray[Any], layer: str) -> Array:
        """As float32. Raises ModelNotStreamable where not all are finite."""
        with np.errstate(over="ignore"):
            array = np.asarray(values, np.float32)
        if not np.isfinite(array).all():
            raise self.refused(layer, "are not finite", "train the model again, with a lower learning rate")
        return array

    def refused(self, layer: str, what: str, way_out: str) -> ModelNotStreamable:
        """The error that names the file and the layer."""
        return ModelNotStreamable(f"{self._path}: the weights of layer {layer[:60]!r} {what}", way_out)


def from_bfloat16(values: npt.NDArray[Any]) -> Array:
    """A bfloat16 is the upper half of a float32."""
    return (values.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _is_numeric(dataset: Any) -> bool:
    """Floating point, or a single whole number: Normalization counts the samples it was adapted to."""
    if dataset.dtype.kind == "V":  # HDF5 knows no bfloat16
        return bool(dataset.dtype.itemsize == 2 and attribute(dataset, "dtype") == "bfloat16")
    return dataset.dtype.kind == "f" or (dataset.dtype.kind in "iu" and dataset.shape == ())
