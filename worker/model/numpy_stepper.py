"""The NumPy engine: one call of the program per wave."""

from __future__ import annotations

import numpy as np

from worker.core.types import Float32Array, Int32Array, Int64Array
from worker.core.waves import waves
from worker.model.program import StepProgram

ROWS_MAX = 1024
"""Rows of one call; more no longer fit the cache and cost more each."""


class NumpyStepper:
    """Steps `worker.ports.Stepper`'s contract in waves. One thread at a time."""

    def __init__(self, program: StepProgram) -> None:
        self._program = program
        self.features = program.features
        self.state_size = program.state_size
        self.columns = program.columns
        self.releases_lock = False

    def step_batch(
        self, slots: Int64Array, features: Float32Array, states: Float32Array, steps: Int32Array
    ) -> Float32Array:
        """See worker.ports.Stepper."""
        answers = np.empty((len(slots), self.columns), np.float32)
        distinct, cut = waves(slots)
        in_order = len(cut) == 1  # then a block's records are a slice, and nothing is copied to reach them
        with np.errstate(all="ignore"):  # a stream of NaN is answered with NaN, not with a warning per batch
            for start in range(0, len(distinct), ROWS_MAX):
                block = slice(start, start + ROWS_MAX)
                rows = states[distinct[block]]
                for wave in cut:
                    records = block if in_order else wave[block]
                    count = len(wave[block])
                    if not count:
                        break
                    answers[records] = self._program.advance(features[records], rows[:count], steps[records])
                states[distinct[block]] = rows
        return answers
