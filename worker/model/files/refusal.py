"""The one line with which a file is refused."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import ModelNotStreamable
from worker.model.files.weights import WAY_OUT

_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError),
    *(KeyError, ValueError, TypeError, RuntimeError, OverflowError),
)
"""What zipfile, zlib, json and h5py raise on damaged bytes."""


def refused(path: Path, what: str, way_out: str = WAY_OUT) -> ModelNotStreamable:
    """The error that names the file."""
    return ModelNotStreamable(f"{path} {what}", way_out)


@contextmanager
def damage_refused(path: Path) -> Iterator[None]:
    """What damaged bytes raise, as the refusal of this file."""
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise refused(path, f"is damaged or incomplete ({reason})") from error
