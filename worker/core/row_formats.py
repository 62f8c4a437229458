"""Rows of several models at once: of the one that is served and of those whose open sequences it finishes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worker.core.state_row import RowFormat, Rows, check_row, row_fingerprint
from worker.core.types import UInt8Array
from worker.errors import StateFromAnotherModel

MODELS_MAX = 255
"""A model's place in the list is kept in a byte."""


class RowFormats(RowFormat):
    """In memory all rows have room for the largest state; at rest each is exactly what its own model would write.

    `formats`: the served model's first. All give the same number of outputs.
    """

    def __init__(self, formats: Sequence[RowFormat]) -> None:
        served = formats[0]
        if any(each.outputs != served.outputs for each in formats):
            raise ValueError("models with different numbers of outputs share no row in memory")
        if len(formats) > MODELS_MAX:
            raise ValueError(f"{len(formats)} models, at most {MODELS_MAX}")
        super().__init__(served.fingerprint.hex(), served.outputs, max(each.state_size for each in formats))
        self.formats = tuple(formats)
        self.models = tuple(each.fingerprint for each in formats)

    def model_of(self, rows: Rows) -> UInt8Array:
        """The place in `models` of each row's model."""
        marks = np.ascontiguousarray(rows["model"]).view(np.uint64).reshape(-1, 2)[:, 0]
        found = np.zeros(len(rows), np.uint8)
        for number, model in enumerate(self.models[1:], 1):
            found[marks == np.frombuffer(model, np.uint64, 1)[0]] = number
        return found

    def pack(self, rows: Rows, sequence_ids: Sequence[bytes] | None = None) -> list[bytes]:
        """See RowFormat."""
        models = self.model_of(rows)
        packed = [b""] * len(rows)
        for number, each in enumerate(self.formats):
            mine = np.flatnonzero(models == number)
            if len(mine):
                ids = None if sequence_ids is None else [sequence_ids[i] for i in mine.tolist()]
                for place, row in zip(mine.tolist(), each.pack(_resized(rows[mine], each), ids), strict=True):
                    packed[place] = row
        return packed

    def unpack(self, packed: Sequence[bytes]) -> tuple[Rows, list[bytes]]:
        """See RowFormat; raises StateFromAnotherModel for a row of none of the models."""
        places: list[list[int]] = [[] for _ in self.formats]
        for place, row in enumerate(packed):
            model = row_fingerprint(row)
            if model not in self.models:
                check_row(row)
                raise StateFromAnotherModel(
                    f"stored state belongs to model {model[:4].hex()}, neither model.path nor in model.previous",
                    "add its file to model.previous",
                )
            places[self.models.index(model)].append(place)
        rows = np.zeros(len(packed), self.dtype)
        sequence_ids = [b""] * len(packed)
        for each, mine in zip(self.formats, places, strict=True):
            if mine:
                own, ids = each.unpack([packed[place] for place in mine])
                rows[mine] = _resized(own, self)
                for place, sequence_id in zip(mine, ids, strict=True):
                    sequence_ids[place] = sequence_id
        return rows, sequence_ids


def _resized(rows: Rows, form: RowFormat) -> Rows:
    """The same rows with room for another number of state floats; what is beyond the smaller size is dropped."""
    resized = np.zeros(len(rows), form.dtype)
    for name in rows.dtype.names or ():
        if name not in ("state", "state_size", "padding"):
            resized[name] = rows[name]
    shared = min(rows.dtype["state"].shape[0], form.state_size)
    resized["state"][:, :shared] = rows["state"][:, :shared]
    resized["state_size"] = form.state_size
    return resized
