"""The samples of a routed batch, each stepped by the model that its sequence began with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from worker.core.publishing import Readout
from worker.core.routed import Routed
from worker.core.slots import StreamTable
from worker.core.types import Float32Array, Int32Array, Int64Array


class Stepper(Protocol):
    """As `worker.ports.Stepper`."""

    @property
    def state_size(self) -> int:
        """S, floats of one stream's state."""

    @property
    def columns(self) -> int:
        """Of its answers: K logits, and K scores behind them where the model has state weights."""

    @property
    def releases_lock(self) -> bool:
        """Whether it steps without the interpreter's lock, beside other threads."""

    def step_batch(
        self, slots: Int64Array, features: Float32Array, states: Float32Array, steps: Int32Array
    ) -> Float32Array:
        """Answers (N, columns); the states (slots, S) are stepped in place."""


class ServedModel(Protocol):
    """A model and what is published of it."""

    @property
    def stepper(self) -> Stepper:
        """Advances its states."""

    @property
    def readout(self) -> Readout:
        """Turns its logits into probabilities."""


def step_routed(
    models: Sequence[ServedModel], routed: Routed, features: Float32Array, table: StreamTable
) -> Float32Array:
    """Answers (n, columns) to the routed samples, features (n, F); `models` as `Routed.models` counts them.

    Samples of several models have the columns of the widest; those that a model does not give are NaN.
    """
    states = table.rows["state"]
    if routed.models is None:
        stepper = models[0].stepper
        table.stepped_by(stepper, routed.slots)
        return stepper.step_batch(routed.slots, features, states[:, : stepper.state_size], routed.steps)
    answers = np.full((len(features), max(model.stepper.columns for model in models)), np.nan, np.float32)
    # The served model last: within a stream its sequence comes after the one that an older model finishes.
    for number in reversed(range(len(models))):
        mine = np.flatnonzero(routed.models == number)
        if len(mine):
            stepper = models[number].stepper
            own = states[:, : stepper.state_size]
            table.stepped_by(stepper, routed.slots[mine])
            found = stepper.step_batch(routed.slots[mine], features[mine], own, routed.steps[mine])
            answers[mine, : stepper.columns] = found
    return answers
