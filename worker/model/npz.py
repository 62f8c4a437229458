"""Sequences from an npz file: the arrays x, y and recording."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.core.types import Float32Array
from worker.errors import ConfigError

Array = npt.NDArray[Any]
NUMBERS, NAMES = "biuf", "biufSU"
"""NumPy's kinds of arrays that hold samples, and that hold labels or names."""


UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises of files that are no archives, damaged, encrypted or compressed in an unknown way."""


@dataclass(frozen=True, slots=True)
class NpzSequences:
    """N sequences of T samples, N and T at least 1, all numbers finite."""

    samples: Float32Array
    """(N, T, F)."""
    labels: list[str]
    """(N,), "" where the file has no y."""
    recordings: list[str]
    """(N,) which recording each was cut from; empty where the file does not say."""


def read_npz(path: Path) -> NpzSequences:
    """x (N, T, F), numbers; optional y (N,), labels; optional recording (N,), names.

    Labels and names may be text or numbers; 4 and 4.0 are "4". Raises ConfigError in one line.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            x = np.asarray(archive["x"])
            y, recording = (_read(path, archive, name) for name in ("y", "recording"))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ConfigError(f"data {path} cannot be read: {error.strerror}", "give a CSV or npz file") from error
    except UNREADABLE as error:
        raise ConfigError(f"{path} is not an npz file with an array x", "np.savez(path, x=x, y=y)") from error
    samples = _samples(path, x)
    return NpzSequences(
        samples,
        [""] * len(x) if y is None else _texts(path, "y", y, len(x)),
        [] if recording is None else _texts(path, "recording", recording, len(x)),
    )


def _read(path: Path, archive: Any, name: str) -> Array | None:
    """An array of labels or names. Objects, such as pandas gives, are pickled, and pickles are not opened."""
    if name not in archive:
        return None
    try:
        return np.asarray(archive[name])
    except UNREADABLE as error:
        raise ConfigError(f"{path}: {name} cannot be read", f"save {name}.astype(str)") from error


def _samples(path: Path, x: Array) -> Float32Array:
    """x as float32, all of it finite."""
    if x.ndim != 3 or x.dtype.kind not in NUMBERS:
        raise ConfigError(f"{path}: x {x.shape} of {x.dtype}", "give numbers of shape (sequences, timesteps, features)")
    if not x.size:
        missing = next(
            name for name, count in zip(("sequences", "timesteps", "features"), x.shape, strict=True) if not count
        )
        raise ConfigError(f"{path}: x has no {missing}, its shape is {x.shape}", "give at least one")
    with np.errstate(over="ignore"):  # told below, with the position
        samples = np.asarray(x, np.float32)
    finite = np.isfinite(samples)
    if not finite.all():
        sequence, step, feature = (int(at) for at in np.unravel_index(np.argmin(finite), x.shape))
        raise ConfigError(
            f"{path}: x[{sequence}, {step}, {feature}] is {x[sequence, step, feature]} (sequence, step, feature)",
            "give finite numbers that fit into float32",
        )
    return samples


def _texts(path: Path, name: str, array: Array, count: int) -> list[str]:
    """The array as text, one for each of `count` sequences."""
    if array.shape != (count,):
        way_out = f"give {name} of shape ({count},)"
        if name == "y" and array.ndim == 2 and len(array) == count:
            way_out += ": y.argmax(axis=1)" if array.shape[1] > 1 else ": y[:, 0]"
        found = len(array) if array.ndim == 1 else f"the shape {array.shape} of"
        what = "labels" if name == "y" else "names"
        raise ConfigError(f"{path}: {count} sequences in x, {found} {what} in {name}", way_out)
    if array.dtype.kind not in NAMES:
        raise ConfigError(f"{path}: {name} holds {array.dtype}", "give text or numbers")
    return [_text(each) for each in array]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    # A label that went through a table of floats is still the label of its number.
    whole = isinstance(value, np.floating) and value.is_integer()
    return str(int(value) if whole else value)
