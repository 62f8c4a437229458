"""Fits a calibration on complete sequences, without labels: the target is what the model itself says at step T.

At each step the final predictor is first regressed on the own one so far and on the state (`calibration_regression`),
where that predicts left-out recordings better than the own one alone; then the regression's prediction of each
sequence, made without its recording, becomes a probability that is right on average (`calibration_logistic`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.core.types import Float32Array, Float64Array, Int64Array
from worker.errors import ConfigError
from worker.model.calibration import (
    CALIBRATED_ACTIVATIONS,
    NUMBERS_MAX,
    Calibration,
    Program,
    forecast,
    own_predictors,
    probabilities_of,
)
from worker.model.calibration_logistic import fitted
from worker.model.calibration_regression import choose, sums_of_products
from worker.model.calibration_scores import drift
from worker.model.early_decisions import counted_decisions, no_decisions
from worker.model.folds import FOLDS, folds_of

SEQUENCES_MIN = 20
"""Below it not even the base rate is known to within a tenth."""

RECORDINGS_MIN = FOLDS
"""Each part that is left out needs one of its own."""

FINAL_MAX = 20.0
"""Of final predictors: beyond it a float32 probability is 0 or 1; one extreme sequence must not decide a regression."""

STATE_FLOATS_MAX = 512
"""Of states that are regressed on: a regression costs their third power."""

STEP_ROWS_MAX = 1024
"""Sequences stepped at once; bounds memory."""

States = Iterator[Float32Array | None]
"""Of each step from 1 to T - 1 the states (N, S) after it, None where forecasts are not to use them."""


def partial_logits(
    program: Program, features: Float32Array, on_progress: Callable[[int], None] | None = None
) -> Float32Array:
    """Logits after every step of complete sequences: features (N, T, F) → (N, T, K), 0 before they say anything.

    `on_progress` is called with the number of samples stepped since its last call.
    """
    sequences, timesteps, _ = features.shape
    logits = np.empty((sequences, timesteps, program.outputs), np.float32)
    for start in range(0, sequences, STEP_ROWS_MAX):
        rows = slice(start, min(start + STEP_ROWS_MAX, sequences))
        count = rows.stop - rows.start
        state = np.zeros((count, program.state_size), np.float32)
        for t in range(timesteps):
            steps = np.full(count, t + 1, np.int32)
            answers, state = program.step(features[rows, t], state, steps)
            logits[rows, t] = answers[:, : program.outputs]
            if on_progress is not None:
                on_progress(count)
    logits[:, : program.computed_from - 1] = 0
    return logits


def check_calibratable(program: Program, model_path: str) -> int:
    """T of a model that can be calibrated. Raises ConfigError with the reason for any other."""
    degenerate = program.activation == "softmax" and program.outputs == 1
    if program.activation not in CALIBRATED_ACTIVATIONS or degenerate:
        raise ConfigError(
            f"{model_path} ends in {program.activation} with {program.outputs} output(s), which cannot be calibrated",
            "calibration is for sigmoid heads, or one softmax head of two or more classes; "
            "without one the worker publishes null before the last step",
        )
    if program.one_output_per_step:
        raise ConfigError(f"{model_path} was trained on an output of each step's own", "serve it as it is")
    if program.timesteps is None:
        raise ConfigError(f"{model_path} takes sequences of any length", "give theirs by --timesteps")
    if program.timesteps < 2:
        raise ConfigError(f"{model_path} has no step before its last one", "serve it as it is")
    if program.outputs**2 * program.timesteps > NUMBERS_MAX:
        raise ConfigError(
            f"{model_path} has {program.outputs} outputs and {program.timesteps} steps, too many to calibrate",
            f"at most {NUMBERS_MAX} are possible of the outputs' square and the steps multiplied",
        )
    if 1 < program.computed_from == program.timesteps:
        raise ConfigError(f"{model_path} says nothing before its last step", "serve it as it is")
    return program.timesteps


def check_logits(logits: Float32Array, recordings: Sequence[str]) -> None:
    """Raises ConfigError where logits (N, T, K) cannot be fitted: too few sequences or recordings, or not finite."""
    sequences, groups = len(logits), len(set(recordings))
    if sequences < SEQUENCES_MIN:
        raise ConfigError(
            f"{sequences} complete sequences are too few to calibrate on", f"give at least {SEQUENCES_MIN}"
        )
    if groups < RECORDINGS_MIN:
        raise ConfigError(
            f"sequences of {groups} recording(s) are too few to calibrate on: they are right or wrong together",
            f"give at least {RECORDINGS_MIN} recordings",
        )
    if not np.isfinite(logits).all():
        raise ConfigError("the model's logits on these sequences are not finite", "check the data for extreme values")


def states_by_step(
    program: Program, features: Float32Array, on_progress: Callable[[int], None] | None = None
) -> States:
    """The states after steps 1 to T - 1 of features (N, T, F), float32; None where they are too many to regress on, not
    finite, or where nothing has been computed yet. `on_progress` is called with samples stepped since its last call."""
    sequences, timesteps, _ = features.shape
    numbers = (timesteps - 1) * program.state_size * program.outputs
    usable = program.state_size <= STATE_FLOATS_MAX and numbers <= NUMBERS_MAX
    states = np.zeros((sequences, program.state_size), np.float32)
    for t in range(timesteps - 1):
        for start in range(0, sequences if usable else 0, STEP_ROWS_MAX):
            rows = slice(start, min(start + STEP_ROWS_MAX, sequences))
            steps = np.full(rows.stop - rows.start, t + 1, np.int32)
            states[rows] = program.step(features[rows, t], states[rows], steps)[1]
        if on_progress is not None:
            on_progress(sequences)
        usable_now = usable and t + 1 >= program.computed_from and bool(np.isfinite(states).all())
        yield states if usable_now else None


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Forecasts of each sequence by a calibration that was fitted without it, to evaluate the method."""

    forecasts: Float32Array
    """(N, T - 1, K)."""
    folds: Int64Array
    """(N,) the part that each sequence was left out with; forecasts of a part are of one fit."""
    by_recording: bool
    """As in `worker.model.folds.Folds`."""


@dataclass(frozen=True, slots=True)
class _Step:
    """The numbers of one step, float64: intercepts, lowest, highest (K,), slopes (K + S, K)."""

    intercepts: Float64Array
    slopes: Float64Array
    lowest: Float64Array
    highest: Float64Array

    def forecasts(self, known: Float64Array, activation: str) -> npt.NDArray[np.floating]:
        predictors = np.clip(self.intercepts + known[:, : len(self.slopes)] @ self.slopes, self.lowest, self.highest)
        return probabilities_of(predictors, activation)


def fit_calibration(
    program: Program,
    logits: Float32Array,
    recordings: Sequence[str],
    method: str,
    *,
    states: States | None = None,
    promises: bool = True,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[Calibration, CrossFit]:
    """Fit on logits (N, T, K) of N complete sequences of these recordings (N,); step T's are the target. Deterministic.

    Without `promises` no early decisions are promised on these sequences, nor where recordings cannot be left out.
    `on_progress` is called with 1 for each step. Raises ConfigError as `check_logits`.
    """
    check_logits(logits, recordings)
    count, timesteps, outputs = logits.shape
    folds = folds_of(logits[:, -1], recordings)
    final = np.clip(own_predictors(logits[:, -1].astype(np.float64), program.activation), -FINAL_MAX, FINAL_MAX)
    forecasts = np.empty((count, timesteps - 1, outputs), np.float32)
    found: list[_Step] = []
    for t in range(timesteps - 1):
        known = own_predictors(logits[:, t].astype(np.float64), program.activation)
        state = None if states is None else next(states)
        # A regression on the state could tell recordings apart that are on both sides.
        if state is not None and folds.by_recording:
            known = np.concatenate([known, state], axis=1, dtype=np.float64)
        step, forecasts[:, t] = _fit_step(known, final, folds.of_sequence, program.activation)
        found.append(step)
        if on_progress is not None:
            on_progress(1)
    _, numbers = np.unique(np.asarray(recordings), return_inverse=True)
    paths, decisions = published_paths(program, logits, forecasts), no_decisions()
    if promises and folds.by_recording and (outputs == 1 or program.activation == "softmax"):
        decisions = counted_decisions(paths, numbers)
    moves = drift(paths[:, program.computed_from - 1 :].transpose(0, 2, 1).reshape(count * outputs, -1))
    size = max(len(step.slopes) for step in found) - outputs
    slopes = np.stack([np.pad(step.slopes, ((0, outputs + size - len(step.slopes)), (0, 0))) for step in found])
    calibration = Calibration(
        fingerprint=program.fingerprint,
        timesteps=timesteps,
        outputs=outputs,
        activation=program.activation,
        method=method,
        sequences=count,
        intercepts=_rounded(np.stack([step.intercepts for step in found])),
        slopes=_rounded(slopes[:, :outputs]),
        state_slopes=_rounded(slopes[:, outputs:]),
        lowest=_rounded(np.stack([step.lowest for step in found])),
        highest=_rounded(np.stack([step.highest for step in found])),
        drift=np.round(moves, 6),
        decided_early=decisions.recordings,
        decided_share=np.round(decisions.decided, 6),
        taken_back=np.round(decisions.taken_back, 6),
    )
    return calibration, CrossFit(forecasts, folds.of_sequence, folds.by_recording)


def _fit_step(
    known: Float64Array, final: Float64Array, fold_of: Int64Array, activation: str
) -> tuple[_Step, npt.NDArray[np.floating]]:
    """Of known (N, R) at one step: the numbers, and the forecasts (N, K) of each fold by numbers fitted without it."""
    folds = range(int(fold_of.max()) + 1)
    products = {fold: sums_of_products(known[fold_of == fold], final[fold_of == fold]) for fold in folds}
    forecasts = np.empty_like(final)
    for fold in folds:
        mine = fold_of == fold
        rest = {other: part for other, part in products.items() if other != fold}
        without = _fitted(known[~mine], final[~mine], fold_of[~mine], rest, activation)
        forecasts[mine] = without.forecasts(known[mine], activation)
    return _fitted(known, final, fold_of, products, activation), forecasts


def _fitted(
    known: Float64Array,
    final: Float64Array,
    fold_of: Int64Array,
    products: dict[int, Float64Array],
    activation: str,
) -> _Step:
    chosen = choose(known, final, fold_of, products)
    intercepts, slopes = fitted(chosen.without_own_part, final, activation)
    intercepts, slopes = intercepts + slopes * chosen.linear.intercepts, chosen.linear.slopes * slopes
    outputs = final.shape[1]
    if not slopes[outputs:].any():
        slopes = slopes[:outputs]
    predictors = intercepts + known[:, : len(slopes)] @ slopes
    return _Step(intercepts, slopes, predictors.min(axis=0), predictors.max(axis=0))


def _rounded(numbers: Float64Array) -> Float64Array:
    """To the 9 digits that float32 keeps."""
    found: Float64Array = np.vectorize(lambda number: float(f"{number:.9g}"), otypes=[np.float64])(numbers)
    return found


def forecasts_of(program: Program, calibration: Calibration, features: Float32Array) -> Float32Array:
    """Forecasts (N, T - 1, K) of whole sequences, features (N, T, F), as a worker makes them."""
    logits, table, weights = partial_logits(program, features), calibration.table(), calibration.state_weights
    forecasts = np.empty_like(logits[:, :-1])
    for t, states in enumerate(states_by_step(program, features)):
        from_state = None if weights is None or states is None else states @ weights[t]
        steps = np.full(len(features), t + 1, np.int32)
        forecasts[:, t] = forecast(table, calibration.activation, logits[:, t], from_state, steps)
    return forecasts


def published_paths(program: Program, logits: Float32Array, forecasts: Float32Array) -> Float32Array:
    """(N, T, K) what a worker publishes with these forecasts (N, T - 1, K); NaN before there is anything to say."""
    paths = np.concatenate([forecasts, program.outputs_of(logits[:, -1])[:, None]], axis=1)
    paths[:, : program.computed_from - 1] = np.nan
    return paths
