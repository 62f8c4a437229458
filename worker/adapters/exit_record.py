"""Why the last worker of a state directory ended; the next one has it as a metric, as no one scrapes a dead process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.errors import StateDirectoryInUse, UserError
from worker.ports import Clock

EXIT_FILE = "last-exit.json"


@dataclass(frozen=True, slots=True)
class Exit:
    """`reason`: the error's class in snake case. `at_ms`: wall clock."""

    reason: str
    code: int
    at_ms: int


@contextmanager
def exit_recorded(directory: str | Path, clock: Clock) -> Iterator[None]:
    """Leave a note in the state directory when the body raises, remove it when the body ends well."""
    file = Path(directory) / EXIT_FILE
    try:
        yield
    except StateDirectoryInUse:
        # The directory, and the note in it, are another process's.
        raise
    except Exception as error:  # whatever ended the worker is noted and goes on
        code = error.exit_code if isinstance(error, UserError) else 1
        _write(file, Exit(_snake(type(error).__name__), code, clock.now_ms()))
        raise
    file.unlink(missing_ok=True)


def previous_exit(directory: str | Path) -> Exit | None:
    """What the last worker left here; None after a clean end, or when it was killed before it could say anything."""
    try:
        note = json.loads((Path(directory) / EXIT_FILE).read_text("utf-8"))
        return Exit(str(note["reason"]), int(note["exit_code"]), int(note["at_ms"]))
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _write(file: Path, exit_: Exit) -> None:
    if file.parent.is_dir():
        note = {"reason": exit_.reason, "exit_code": exit_.code, "at_ms": exit_.at_ms}
        file.write_text(json.dumps(note) + "\n", "utf-8")


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
