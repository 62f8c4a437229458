"""The kernel as an engine; numba is imported here and nowhere else outside of `compiled`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from worker.core.types import Float32Array, Int32Array, Int64Array
from worker.model.kernel.operations import KernelTables
from worker.model.program import StepProgram

CACHE_VARIABLE = "NUMBA_CACHE_DIR"


def private_cache() -> Path:
    """Where compiled code is kept between starts: readable and writable by this user only, since it is executed."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "lstm-worker" / "kernel"


def _use_private_cache() -> None:
    if CACHE_VARIABLE in os.environ:
        return
    directory = private_cache()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        # A read-only home: numba then keeps its files beside the source, or compiles at every start.
        return
    if directory.stat().st_uid == os.getuid():
        os.environ[CACHE_VARIABLE] = str(directory)


class KernelStepper:
    """Steps `worker.ports.Stepper`'s contract in record order, without waves. One thread at a time."""

    def __init__(self, program: StepProgram, tables: KernelTables) -> None:
        """Compiles the loop, or loads it from the cache."""
        _use_private_cache()
        from worker.model.kernel.compiled import step_samples

        self.features = program.features
        self.state_size = program.state_size
        self.columns = program.columns
        self.releases_lock = True
        self._tables = tables
        self._step_samples = step_samples

    def step_batch(
        self, slots: Int64Array, features: Float32Array, states: Float32Array, steps: Int32Array
    ) -> Float32Array:
        """See worker.ports.Stepper."""
        answers = np.empty((len(slots), self.columns), np.float32)
        tables = self._tables
        self._step_samples(
            tables.operations, tables.parameters, tables.weights, tables.width, slots, features, states, steps, answers
        )
        return answers
