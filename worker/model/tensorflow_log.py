"""TensorFlow's notes while it is imported, which are not for the user."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_NOTE = re.compile(rb"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} [\d:.]+ +\d+ ")
"""How such a line begins: information or a warning of its C++ log, or what announces them."""


@contextmanager
def start_notes_left_out() -> Iterator[None]:
    """Keep TensorFlow's notes from standard error; what else is written there follows at the end.

    `TF_CPP_MIN_LOG_LEVEL` alone does not: some come before its log is initialised.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as written:
            os.dup2(written.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
                written.seek(0)
                for line in written:
                    if not _NOTE.match(line):
                        os.write(2, line)
    finally:
        os.close(kept)
