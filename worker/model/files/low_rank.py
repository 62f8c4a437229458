"""Low-rank updates of weights (LoRA): HDF5 files of Keras 3 keep them apart, `.keras` files are merged."""

from __future__ import annotations

import re

from worker.model.files.weights import Array

UPDATE = re.compile(r"(.*/)lora_([^/]+)_a(:0)?")
"""The name of the first factor of an update."""


def merged(names: list[str], arrays: list[Array], alpha: float | None = None) -> list[Array]:
    """The arrays of a layer with its updates in them, weight + a · b, in the order that they have without updates: a
    weight that has one is frozen, so that files name it last; it is the first of its layer.

    Raises ValueError for an update that is not whole, or with another `alpha` than its rank: Keras saves that scale in
    HDF5 files and forgets it when it loads them.
    """
    found = dict(zip(names, arrays, strict=True))
    updated: dict[str, Array] = {}
    for name in names:
        if (match := UPDATE.fullmatch(name)) is None:
            continue
        above, weight, end = match[1], match[2], match[3] or ""
        a, b, before = (
            found.pop(each, None) for each in (name, f"{name[: match.end(2)]}_b{end}", above + weight + end)
        )
        if a is None or b is None or before is None or not _fit(a, b, before):
            raise ValueError("have a low-rank update that does not fit them")
        if alpha not in (None, len(b)):
            raise ValueError("have a low-rank update with a lora_alpha of its own")
        updated[above] = before + a @ b
    if not updated:
        return arrays
    return [
        array
        for above in dict.fromkeys(map(_above, names))
        for array in [updated.get(above), *(found[name] for name in found if _above(name) == above)]
        if array is not None
    ]


def _above(name: str) -> str:
    return name[: name.rfind("/") + 1]


def _fit(a: Array, b: Array, weight: Array) -> bool:
    ranks = a.ndim == weight.ndim >= 1 and b.ndim == 2
    return ranks and (*a.shape, b.shape[-1]) == (*weight.shape[:-1], len(b), weight.shape[-1])
