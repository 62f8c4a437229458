"""Which Keras wrote a file: what the file says, and where it says nothing that can be read, what its words are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worker.model.files.refusal import refused

NEWEST = 3
KERAS_2_KEYS = ("batch_input_shape", "time_major")
KERAS_3_CLASSES = ("DTypePolicy", "__keras_tensor__")


def keras_major(path: Path, stated: Any, configuration: dict[str, Any]) -> int:
    """The first number of the version. Raises ModelNotStreamable for one that is not known, or cannot be told.

    Files of Keras 2.2 and earlier do not always say, and have no `module` either.
    """
    text = stated.decode(errors="replace") if isinstance(stated, bytes) else str(stated or "")
    match = re.match(r"(\d{1,6})(\.|$)", text)
    if match and int(match.group(1)) > NEWEST:
        what = f"was written by Keras {text[:20]}, and words may mean something else there"
        raise refused(path, what, "save it with Keras 3")
    if match:
        return int(match.group(1))
    marks = set(_marks(configuration)) or ({2} if "module" not in configuration else set())
    if len(marks) != 1:
        raise refused(path, "does not say which version of Keras wrote it")
    return marks.pop()


def _marks(value: Any) -> Iterator[int]:
    """2 and 3 for what only these write; nesting is bounded by the JSON's."""
    if isinstance(value, dict):
        config = value.get("config")
        if any(key in value for key in KERAS_2_KEYS):
            yield 2
        is_input = value.get("class_name") == "InputLayer" and isinstance(config, dict) and "batch_shape" in config
        if is_input or value.get("class_name") in KERAS_3_CLASSES:
            yield 3
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _marks(each)
