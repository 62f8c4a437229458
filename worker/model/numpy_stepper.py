"""The NumPy engine: one call of the program per wave."""

from __future__ import annotations

import numpy as np

from worker.core.types import Float32Array, Int32Array, Int64Array
from worker.core.waves import waves
from worker.model.program import StepProgram

ROWS_MAX = 1024
"""Rows of one call; more no longer fit the cache and cost more each."""


class NumpyStepper:
    """Steps `worker.ports.Stepper`'s contract in waves."""

    def __init__(self, program: StepProgram) -> None:
        self._program = program
        self.features = program.features
        self.state_size = program.state_size
        self.outputs = program.outputs

    def step_batch(
        self, slots: Int64Array, features: Float32Array, states: Float32Array, steps: Int32Array
    ) -> Float32Array:
        """See worker.ports.Stepper."""
        logits = np.empty((len(slots), self.outputs), np.float32)
        if not len(slots):
            return logits
        with np.errstate(all="ignore"):
            for wave in waves(slots):
                for start in range(0, len(wave), ROWS_MAX):
                    part = wave[start : start + ROWS_MAX]
                    rows = slots[part]
                    logits[part], states[rows] = self._program.step(features[part], states[rows], steps[part])
        return logits
