"""What is published of a model: how a worker makes its readout, and what `check` shows of whole sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from worker.core.types import BoolArray, Float32Array, Int32Array
from worker.errors import ModelNotStreamable
from worker.model.calibration import calibration_for
from worker.model.program import StepProgram
from worker.model.readout import Readout
from worker.ports import Stepper


def with_readout(program: StepProgram, path: Path, configured: str = "") -> tuple[StepProgram, Readout]:
    """The readout with the configured calibration, else with the side-car beside the file, where there is one, and the
    program that gives what it reads.

    Raises ModelNotStreamable for a head that gives no probability, ConfigError for a calibration that does not fit.
    """
    if not program.is_probability:
        layer = program.heads_without_probability[0]
        raise ModelNotStreamable(
            f"{path}: layer {layer!r} ends the model and gives no probability",
            "serve a model that ends in a sigmoid or softmax",
        )
    calibration = calibration_for(program, path, configured)
    if calibration is not None and calibration.state_weights is not None:
        program = program.with_state_weights(calibration.state_weights)
    return program, Readout(program, calibration)


def stepped(program: StepProgram, stepper: Stepper, samples: Float32Array) -> tuple[Float32Array, Int32Array]:
    """An engine's answers and 1-based steps of sequences (N, T, F), N · T rows in the order of time."""
    sequences, timesteps, _ = samples.shape
    # One call for all: N streams, record by record.
    slots = np.tile(np.arange(sequences, dtype=np.int64), timesteps)
    steps = np.repeat(np.arange(1, timesteps + 1, dtype=np.int32), sequences)
    states = np.zeros((sequences, program.state_size), np.float32)
    by_time = np.ascontiguousarray(samples.transpose(1, 0, 2)).reshape(-1, program.features)
    return stepper.step_batch(slots, by_time, states, steps), steps


def published(
    program: StepProgram, stepper: Stepper, readout: Readout, samples: Float32Array
) -> tuple[Float32Array, BoolArray]:
    """What a worker publishes of sequences (N, T, F), of T steps at most.

    Probabilities (N, T, K), NaN where there is none, and at which steps (T,) they are the model's own.
    """
    sequences, timesteps, _ = samples.shape
    answers, steps = stepped(program, stepper, samples)
    bad = ~np.isfinite(answers[:, : program.outputs]).all(axis=1).reshape(timesteps, sequences)
    # From its first number that is not finite on a sequence has none.
    lost = np.logical_or.accumulate(bad).reshape(-1, 1)
    probabilities, exact = readout.publish(np.where(lost, np.float32(np.nan), answers), steps)
    by_sequence = probabilities.reshape(timesteps, sequences, -1).transpose(1, 0, 2)
    return by_sequence, exact.reshape(timesteps, sequences)[:, 0]
