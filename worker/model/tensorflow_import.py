"""How TensorFlow is imported: silent, exact in float32 and modest on a GPU."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_NOTE = re.compile(rb"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} [\d:.]+ +\d+ ")
"""How such a line begins: information or a warning of its C++ log, or what announces them."""


@contextmanager
def importing_tensorflow() -> Iterator[None]:
    """Within this import tensorflow, or what imports it.

    Its notes are kept from standard error; what else is written there follows at the end. Products of float32 are not
    rounded to TensorFloat-32, which GPUs since Ampere do unasked, with an error of 1e-3. A GPU's memory is taken as it
    is needed, so that several workers share one, unless TF_FORCE_GPU_ALLOW_GROWTH says otherwise.
    """
    # TF_CPP_MIN_LOG_LEVEL alone does not silence it: some notes come before its log is initialised.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
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
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].config.experimental.enable_tensor_float_32_execution(False)
