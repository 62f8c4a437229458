"""From logits to the published probability: the calibrated forecast before the last step, or the model's own number."""

from __future__ import annotations

import numpy as np

from worker.core.types import BoolArray, Float32Array, Int32Array
from worker.errors import ConfigError, ModelNotStreamable
from worker.model.calibration import Calibration, Program, forecast


class Readout:
    """Never publishes a number under a name it does not deserve.

    A `prefix` model's output is defined, hence exact, at every step from `exact_from` on, an `end` model's at step T.
    With a calibration the probability before step T is E[p_T | state] of either, and not exact; without one an `end`
    model has none there, which is NaN.

    Raises ModelNotStreamable for a head that gives no probabilities, ConfigError for a calibration that does not
    belong to the program.
    """

    def __init__(self, program: Program, calibration: Calibration | None = None) -> None:
        if not program.is_probability:
            raise ModelNotStreamable(
                f"the model's head ({program.activation}) gives no probability",
                "serve a model that ends in a sigmoid or softmax",
            )
        if calibration is not None and calibration.fingerprint != program.fingerprint:
            raise ConfigError(
                f"calibration of model {calibration.fingerprint} for model {program.fingerprint}",
                "make one with `lstm-worker calibrate`",
            )
        self._program = program
        self.calibration = calibration
        self._table = None if calibration is None else calibration.table()
        self._uses_state = calibration is not None and calibration.state_weights is not None
        forecasts = calibration is not None or program.exactness == "end"
        self._own_from = (program.timesteps or 1) if forecasts else program.exact_from
        """The first step at which the model's own number is published."""
        self.computed_from = program.computed_from
        """The first step whose logits say anything."""
        self.calibration_id: str | None = None if calibration is None else calibration.id

    def exact(self, steps: Int32Array) -> BoolArray:
        """Whether what is published at these steps is the model's own number."""
        exact: BoolArray = steps >= self._own_from
        return exact

    def publish(self, answers: Float32Array, steps: Int32Array) -> tuple[Float32Array, BoolArray]:
        """answers (N, K) float32, steps (N,) in 1..T → probabilities (N, K) float32, exact (N,).

        The answers are an engine's: logits, behind them K more columns where it was given the calibration's
        `state_weights`. NaN where there is no probability yet; NaN answers give NaN.
        """
        program, exact = self._program, self.exact(steps)
        logits = answers[:, : program.outputs]
        if exact.all():
            return program.outputs_of(logits), exact
        if self._table is None:
            probabilities = np.full(logits.shape, np.nan, np.float32)
        else:
            # Rows at step T borrow the row of T - 1: cheaper than to cut them out, and they are overwritten below.
            before_end = np.minimum(steps, len(self._table.intercepts))
            from_state = answers[:, program.outputs :] if self._uses_state else None
            probabilities = forecast(self._table, program.activation, logits, from_state, before_end)
            if self.computed_from > 1:
                probabilities[steps < self.computed_from] = np.nan
        if exact.any():
            probabilities[exact] = program.outputs_of(logits[exact])
        return probabilities, exact

    def describe(self) -> str:
        """One line on what is published when, for the worker's log at start."""
        program, calibration = self._program, self.calibration
        if calibration is not None:
            null = f"null before step {self.computed_from}, then " if self.computed_from > 1 else ""
            return (
                f"probability before step {program.timesteps} is {null}the calibrated forecast of the last one "
                f"(calibration {self.calibration_id}, {calibration.sequences} sequences); then the model's own"
            )
        if program.exactness == "prefix":
            begins = f"from step {program.exact_from} on, null before" if program.exact_from > 1 else "at every step"
            return f"probability is the model's own number {begins}"
        if 1 < program.computed_from == program.timesteps:
            return f"probability is null before step {program.timesteps}: the model runs on the whole sequence only"
        return (
            f"probability is null before step {program.timesteps}: the model has no calibration, "
            "make one with `lstm-worker calibrate MODEL DATA.csv`"
        )
