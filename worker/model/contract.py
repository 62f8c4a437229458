"""The law: stepping equals the whole sequence, whatever the batch looks like. Checked at every load and by tests."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from worker.core.types import Float32Array
from worker.errors import ModelNotStreamable
from worker.model.numpy_stepper import NumpyStepper
from worker.model.program import Node, StepProgram
from worker.ports import Stepper

TOLERANCE = 1e-6
"""Of a probability; float32 models differ from a float64 evaluation by about 1e-7. Of larger numbers, their share."""
ROUNDINGS = 8
"""How many times the effect of one rounding of the samples to float32 a model may differ beyond that: steep trained
models, and recurrent ones over many steps, magnify every rounding."""
TOLERANCE_MAX = 1e-5
"""Whatever it magnifies: beyond that two programs that are both right do not say the same."""
SCORES_TOLERANCE = 1e-5
"""Of a score of the state, or of the sum of its terms' sizes: large terms that cancel leave their rounding behind."""
SEQUENCES = 16
STEPS_WITHOUT_LENGTH = 12
STEPS_MAX = 256
MASKED_SHARE = 0.2
"""Of the steps, where the model leaves some out."""


@dataclass(frozen=True, slots=True)
class Verification:
    """How far the engine is from the independent float64 evaluation."""

    sequences: int
    timesteps: int
    largest_difference: float


def verify(program: StepProgram, stepper: Stepper | None = None, seed: int = 1) -> Verification:
    """Step random sequences with rows at different steps and a NaN row among them. Raises ModelNotStreamable."""
    engine = stepper or NumpyStepper(program)
    steps = program.timesteps or STEPS_WITHOUT_LENGTH + program.exact_from - 1
    begins = max(program.exact_from, program.computed_from)
    steps = min(steps, max(STEPS_MAX, begins))
    generator = np.random.default_rng(seed)
    samples = drawn_samples(program, SEQUENCES, steps, generator)
    with np.errstate(all="ignore"):
        expected = program.whole(samples)
    answers = _stepped(engine, samples)
    got = answers[:, :, : program.outputs]
    with np.errstate(all="ignore"):
        # Before that step nothing is promised: the first window is not full yet.
        begun = slice(begins - 1, None)
        wanted = program.outputs_of(expected[:, begun].reshape(-1, program.outputs).astype(np.float64))
        outputs = program.outputs_of(got[:, begun].reshape(-1, program.outputs))
    if np.isnan(wanted).all():
        raise ModelNotStreamable(
            "the model's outputs are not numbers: the values between its layers are too large",
            "train it with smaller weights (regularization, gradient clipping)",
        )
    difference = largest_difference(outputs, wanted)
    if not difference <= TOLERANCE:
        with np.errstate(all="ignore"):
            rounded = _rounded(program, samples, generator)[:, begun]
            moved = program.outputs_of(rounded.reshape(-1, program.outputs).astype(np.float64))
        _check_rounding(difference, largest_difference(moved, wanted))
    if program.state_weights is not None:
        _check_scores(program, program.state_weights, samples, answers[:, :, program.outputs :])
    return Verification(SEQUENCES, steps, difference)


def _check_scores(program: StepProgram, weights: Float32Array, samples: Float32Array, found: Float32Array) -> None:
    """Whether an engine's scores (N, T, K) are those of the states that NumPy steps. Raises ModelNotStreamable."""
    state = np.zeros((len(samples), program.state_size), np.float32)
    wanted, terms = np.zeros((2, *samples.shape[:2], program.outputs))
    with np.errstate(all="ignore"):
        for step in range(1, min(samples.shape[1], len(weights)) + 1):
            _, state = program.step(samples[:, step - 1], state, np.full(len(samples), step, np.int32))
            wanted[:, step - 1] = state.astype(np.float64) @ weights[step - 1].astype(np.float64)
            terms[:, step - 1] = np.abs(state) @ np.abs(weights[step - 1])
        finite = np.isfinite(wanted)
        differences = np.abs(found - wanted)[finite] / np.maximum(1, terms[finite])
    difference = float(differences.max(initial=0))
    if not difference <= SCORES_TOLERANCE:
        raise ModelNotStreamable(
            f"the engine's scores of the state differ from NumPy's by {difference:.1e} of their terms, "
            f"{SCORES_TOLERANCE:.0e} are allowed",
            "this is a defect of the worker: run without the calibration, and report what `lstm-worker check` says",
        )


def _check_rounding(difference: float, effect: float) -> None:
    """Whether a difference comes from rounding: `effect` is that of one rounding of the samples.

    Raises ModelNotStreamable.
    """
    if not difference <= ROUNDINGS * effect:
        raise ModelNotStreamable(
            f"the engine differs from a float64 evaluation by {difference:.1e}, {TOLERANCE:.0e} are allowed",
            "this is a defect of the worker or of the file: run `lstm-worker check` and report its output",
        )
    if difference > TOLERANCE_MAX:
        raise ModelNotStreamable(
            f"the model magnifies rounding: samples rounded once to float32 change its output by {effect:.1e}, and no "
            "two programs agree on it",
            "train it with smaller recurrent weights (regularization, gradient clipping) or on shorter sequences",
        )


def _rounded(program: StepProgram, samples: Float32Array, generator: np.random.Generator) -> Any:
    """`whole` of samples moved to the next float32 above or below; of ids, the rows of the table are moved instead.
    What is left out by a mask stays so."""

    def next_to(numbers: Any) -> Any:
        towards = np.where(generator.random(numbers.shape) < 0.5, np.float32(-np.inf), np.float32(np.inf))
        return np.nextafter(np.asarray(numbers, np.float32), towards)

    def rows_moved(node: Node) -> Node:
        return replace(node, whole=lambda x: next_to(node.whole(x)))

    moved = np.where(np.isin(samples, program.mask_values), samples, next_to(samples))
    for each in program.inputs:
        if each.ids:
            moved[:, :, each.columns] = samples[:, :, each.columns]
    changed = copy(program)
    changed.nodes = tuple(rows_moved(node) if node.class_name == "Embedding" else node for node in program.nodes)
    return changed.whole(moved)


def largest_difference(one: Any, other: Any) -> float:
    """Of two arrays, of numbers beyond 1 their share; an average over nothing but masked steps is not a number in both,
    which is no difference."""
    differences = np.where(np.isnan(one) & np.isnan(other), 0, np.abs(one - other) / np.maximum(1, np.abs(other)))
    return float(differences.max()) if differences.size else 0.0


def drawn_samples(
    program: StepProgram, sequences: int, timesteps: int, generator: np.random.Generator, masked: float = MASKED_SHARE
) -> Float32Array:
    """Random sequences (N, T, F), ids where an input takes these; a share of the steps after the first, of each input,
    is what a masking layer leaves out."""
    samples = generator.standard_normal((sequences, timesteps, program.features)).astype(np.float32)
    for each in program.inputs:
        if each.ids:
            samples[:, :, each.columns] = generator.integers(0, each.ids, (sequences, timesteps, 1))
    for each in program.inputs if program.mask_values else ():
        left_out = generator.random((sequences, timesteps)) < masked
        left_out[:, 0] = False  # an average over nothing is not a number
        part = samples[:, :, each.columns]
        if each.ids:  # the other values are no ids
            part[:, :1] = np.maximum(part[:, :1], min(1, each.ids - 1))
            part[left_out] = 0
        else:
            part[left_out] = generator.choice(program.mask_values, (int(left_out.sum()), 1))
    return samples


def _stepped(engine: Stepper, samples: Float32Array) -> Float32Array:
    """Answers (N, T, columns): sequence i starts i batches late, and a stream of NaN shares every batch."""
    count, steps, features = samples.shape
    states = np.full((count + 1, engine.state_size), np.nan, np.float32)
    answers = np.empty((count, steps, engine.columns), np.float32)
    poison = np.full(features, np.nan, np.float32)
    for turn in range(steps + count - 1):
        rows = [i for i in range(count) if 0 <= turn - i < steps]
        slots = np.array([count, *rows], np.int64)
        batch = np.stack([poison, *[samples[i, turn - i] for i in rows]])
        at = np.array([min(turn, steps - 1) + 1, *[turn - i + 1 for i in rows]], np.int32)
        found = engine.step_batch(slots, batch, states, at)
        for row, i in enumerate(rows, 1):
            answers[i, turn - i] = found[row]
    return answers
