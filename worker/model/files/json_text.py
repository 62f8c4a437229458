"""JSON of a file, bounded in length and depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

from worker.errors import ModelNotStreamable
from worker.model.files.weights import WAY_OUT

JSON_BYTES_MAX = 4 << 20
"""Parsed, a byte of hostile JSON takes up to thirty; configurations of real models have some ten thousand bytes."""
NESTING_MAX = 64
"""Levels of a configuration; those of Keras have about ten."""


def json_object(path: Path, name: str, text: str | bytes) -> dict[str, Any]:
    """The object that `text` holds.

    Raises ModelNotStreamable naming `name` where it is too long, too deep or no object;
    ValueError or RecursionError where it is no JSON.
    """
    if len(text) > JSON_BYTES_MAX:
        raise ModelNotStreamable(f"{path} has a {name} of {len(text)} bytes, {JSON_BYTES_MAX} are read", WAY_OUT)
    value = json.loads(text)
    level = [value]
    for _ in range(NESTING_MAX):
        nested = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [child for children in nested for child in children]
    if level or not isinstance(value, dict):
        raise ModelNotStreamable(f"{path} has a {name} that is no configuration of a model", WAY_OUT)
    return value


def read_bounded(file: BinaryIO) -> bytes:
    """All of it, or one byte more than `json_object` takes."""
    return file.read(JSON_BYTES_MAX + 1)
