"""Recordings of samples from a CSV file, one sample a row, or from an npz file; and sequences cut from them."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from worker.core.types import Float32Array
from worker.errors import ConfigError
from worker.model.npz import read_npz

RECORDING, SPLIT, STEP = "recording", "split", "step"
"""Column names with a meaning; only `recording` is required."""

LABEL_COLUMN = "label"
"""A column of this name holds the label; without one, the only column that is not numeric does."""
MISSING_LABELS = ("", "nan")
"""An empty cell, and what a number that is none becomes as text."""
FLOAT32_MAX = float(np.finfo(np.float32).max)
GIVE = "give a CSV file, or an npz with x and y"


@dataclass(frozen=True, slots=True)
class Recording:
    """The samples of one stream, in order: a whole recording, or a window of one."""

    name: str
    """The stream's; no two of a file have the same."""
    split: str
    """"" where the file has none."""
    labels: Sequence[str]
    """(steps,) of each sample; "" where the file has none."""
    features: Float32Array
    """(steps, F)."""
    window_of: str = ""
    """The recording that it was cut from; "" where it is one. Windows may overlap, so they are never put together."""

    @property
    def label(self) -> str:
        """That of the last sample."""
        return self.labels[-1]


@dataclass(frozen=True, slots=True)
class Sequences:
    """N complete sequences of T samples."""

    features: Float32Array
    """(N, T, F)."""
    labels: list[str]
    """Of the last sample of each."""
    recordings: list[str]
    """Which recording each sequence was cut from; those of one are not independent."""

    def __len__(self) -> int:
        return len(self.labels)


def read_recordings(path: Path, features: Sequence[str] = (), label: str = "") -> list[Recording]:
    """What `read_csv` gives of a CSV file, or the sequences of an npz file; see docs/data_files.md.

    `features` and `label` name columns of a CSV file. Raises ConfigError.
    """
    if path.suffix != ".npz":
        return read_csv(path, features, label)
    if features or label:
        raise ConfigError(f"{path} has no columns that --features or --label could name", "leave them out")
    return _of_npz(path)


def _of_npz(path: Path) -> list[Recording]:
    """Each sequence as a stream of its own, called after its recording; all are numbered where any has several."""
    found = read_npz(path)
    names = found.recordings or [f"row-{number}" for number in range(len(found.labels))]
    parents = [""] * len(names)
    if len(set(names)) < len(names):
        parents, names = names, _numbered(names)
    steps = found.samples.shape[1]
    each = zip(names, found.labels, found.samples, parents, strict=True)
    return [Recording(name, "", [label] * steps, samples, parent) for name, label, samples, parent in each]


def _numbered(names: Sequence[str]) -> list[str]:
    """name/1, name/2, … of equal names. All get a number, so that no two are the same afterwards."""
    counts: Counter[str] = Counter()
    result = []
    for name in names:
        counts[name] += 1
        result.append(f"{name}/{counts[name]}")
    return result


def read_csv(path: Path, features: Sequence[str] = (), label: str = "") -> list[Recording]:
    """Recordings in the order of their first row; rows of one may lie apart.

    `features` names the feature columns in order; empty: all columns but recording, split, step and the label.
    `label` names the label's column; empty: see LABEL_COLUMN. The label may change within a recording, the split not.
    A `step` column must count 1, 2, 3 … in each recording.
    Raises ConfigError naming the line and the column of what cannot be used.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read(path, file, features, label)
    except OSError as error:
        raise ConfigError(f"data {path} cannot be read: {error.strerror}", GIVE) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"data {path} is no CSV file in UTF-8: {error}", GIVE) from error


def of_split(recordings: Sequence[Recording], split: str) -> list[Recording]:
    """The recordings of one split; all where `split` is empty. Raises ConfigError where there is none."""
    chosen = [recording for recording in recordings if split in ("", recording.split)]
    if not chosen:
        found = ", ".join(sorted({recording.split for recording in recordings})) or "none"
        raise ConfigError(f"the data have no recordings of split {split!r}", f"they have {found}")
    return chosen


def sequences_of(recordings: Sequence[Recording], timesteps: int) -> Sequences:
    """Cut recordings into consecutive sequences of `timesteps` samples, as a worker does; a shorter rest is dropped.

    A sequence has the label of its last sample, of which the model's last number is.
    """
    pieces: list[Float32Array] = []
    labels: list[str] = []
    names: list[str] = []
    for recording in recordings:
        count = len(recording.features) // timesteps
        pieces += np.split(recording.features[: count * timesteps], count) if count else []
        labels += recording.labels[timesteps - 1 : count * timesteps : timesteps]
        names += [recording.window_of or recording.name] * count
    width = recordings[0].features.shape[1] if recordings else 0
    features = np.stack(pieces) if pieces else np.empty((0, timesteps, width), np.float32)
    return Sequences(features, labels, names)


def is_positive(labels: Sequence[str], positive: str) -> npt.NDArray[np.bool_]:
    """Which labels are the positive class.

    Raises ConfigError where a label is missing, and where none or all are positive, naming the labels there are.
    """
    _check_complete(labels, [positive])
    result = np.array([label == positive for label in labels], bool)
    if result.all() or not result.any():
        found = ", ".join(sorted(set(labels))) or "no labels"
        raise ConfigError(f"label {positive!r} does not tell two classes apart", f"the data have: {found}")
    return result


def is_class(labels: Sequence[str], classes: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which of the classes each label is, (N, K). Raises ConfigError for a label that is missing or none of them."""
    _check_complete(labels, classes)
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        raise ConfigError(f"label {unknown[0]!r} is none of the classes {', '.join(classes)}", "name all of them")
    return np.array([[label == name for name in classes] for label in labels], bool)


def _check_complete(labels: Sequence[str], named: Sequence[str]) -> None:
    """Raises ConfigError where labels are missing; a name that is asked for never is."""
    missing = [
        number
        for number, label in enumerate(labels, 1)
        if label.strip().lower() in MISSING_LABELS and label not in named
    ]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(labels)} sequences have no label, the first is number {missing[0]}",
            "label them or leave them out of the data; without --positive and --classes `calibrate` needs no labels",
        )


@dataclass(slots=True)
class _Rows:
    """Rows of one recording while the file is read."""

    split: str
    labels: list[str] = field(default_factory=list)
    samples: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Positions of the columns."""

    features: list[int]
    recording: int
    split: int | None
    step: int | None
    label: int | None


def _read(path: Path, file: TextIO, features: Sequence[str], label: str) -> list[Recording]:
    rows = csv.reader(file, strict=True)
    header: list[str] = next(rows, [])
    columns: _Columns | None = None
    found: dict[str, _Rows] = {}
    for row in rows:
        if not row:
            continue
        if len(row) != len(header):
            raise ConfigError(f"{path} line {rows.line_num} has {len(row)} fields, the header {len(header)}", "mend it")
        if columns is None:
            columns = _columns(path, header, row, features, label)
        name = row[columns.recording]
        split = "" if columns.split is None else row[columns.split]
        recording = found.setdefault(name, _Rows(split))
        where = f"{path} line {rows.line_num}"
        if recording.split != split:
            raise ConfigError(f"{where}: recording {name} changes its split", "give each recording one split")
        recording.labels.append("" if columns.label is None else sys.intern(row[columns.label]))
        recording.samples.append([_number(row[i], where, header[i]) for i in columns.features])
        if columns.step is not None and row[columns.step] != str(len(recording.samples)):
            raise ConfigError(
                f"{where}: step {row[columns.step]} of recording {name}, expected {len(recording.samples)}",
                "order the rows of each recording by step, without gaps",
            )
    if not found:
        raise ConfigError(f"{path} has no rows", "give a CSV file with a header and one sample a row")
    return [
        Recording(name, rows.split, rows.labels, np.array(rows.samples, np.float32)) for name, rows in found.items()
    ]


def _columns(path: Path, header: list[str], first: list[str], features: Sequence[str], label: str) -> _Columns:
    """What each column is, from the header and the first row."""
    if len(set(header)) != len(header):
        raise ConfigError(f"{path} has two columns of one name", "rename one")
    missing = [name for name in (RECORDING, label, *features) if name and name not in header]
    if missing:
        raise ConfigError(f"{path} has no column {missing[0]!r}", f"it has: {', '.join(header)}")
    rest = [name for name in header if name not in (RECORDING, SPLIT, STEP)]
    if not label:
        texts = [name for name in rest if not _is_number(first[header.index(name)]) and name not in features]
        if LABEL_COLUMN in rest:
            label = LABEL_COLUMN
        elif len(texts) > 1:
            raise ConfigError(f"{path}: columns {', '.join(texts)} are not numeric", "name the label's with --label")
        else:
            label = texts[0] if texts else ""
    chosen = list(features) or [name for name in rest if name != label]
    if not chosen:
        raise ConfigError(f"{path} has no feature columns", f"it has: {', '.join(header)}")
    return _Columns(
        features=[header.index(name) for name in chosen],
        recording=header.index(RECORDING),
        split=header.index(SPLIT) if SPLIT in header else None,
        step=header.index(STEP) if STEP in header else None,
        label=header.index(label) if label else None,
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(text: str, where: str, column: str) -> float:
    """A finite number. Raises ConfigError naming line and column."""
    if not _is_number(text):
        way_out = "mend the row, or name the feature columns with --features"
        raise ConfigError(f"{where}: {column} is {text!r}, no number", way_out)
    number = float(text)
    if not abs(number) <= FLOAT32_MAX:
        raise ConfigError(f"{where}: {column} is {text!r}, no finite number of float32", "mend the row or leave it out")
    return number
