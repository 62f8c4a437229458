"""JSON of a file, bounded in length and depth."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from worker.errors import ModelNotStreamable
from worker.model.files.weights import WAY_OUT

JSON_BYTES_MAX = 4 << 20
"""Parsed, a byte of hostile JSON takes up to thirty; configurations of real models have some ten thousand bytes."""
NESTING_MAX = 64
"""Levels of a configuration; those of Keras have about ten."""


def json_object(path: Path, name: str, text: str | bytes, way_out: str = WAY_OUT) -> dict[str, Any]:
    """The object that `text` holds.

    Raises ModelNotStreamable naming `name` where it is too long, too deep, no JSON or no object, and where an object
    has a key twice, of which readers take one or the other.
    """
    if len(text) > JSON_BYTES_MAX:
        raise ModelNotStreamable(f"{path} has a {name} of {len(text)} bytes, {JSON_BYTES_MAX} are read", way_out)
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ModelNotStreamable(f"{path} has a {name} that is no JSON ({str(error)[:80]})", way_out) from error
    level = [value]
    for _ in range(NESTING_MAX):
        nested = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [child for children in nested for child in children]
    if level or not isinstance(value, dict):
        raise ModelNotStreamable(f"{path} has a {name} that is no configuration of a model", way_out)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"it has {twice[:40]!r} twice")
    return found


def read_bounded(file: BinaryIO) -> bytes:
    """All of it, or one byte more than `json_object` takes."""
    return file.read(JSON_BYTES_MAX + 1)
