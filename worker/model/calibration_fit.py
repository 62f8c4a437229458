"""Fits a calibration on complete sequences, without labels: the target is what the model itself says at step T.

Per step the fit starts from a linear regression of the final log-odds on those so far, turned into a probability
(`_regression`), and is corrected by a penalised logistic regression on the final probabilities (`_corrected`). The
regression sees how far the log-odds are apart and needs few sequences; the correction makes the mean right and takes
over as sequences become many. What the data do not show shrinks to the base rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from worker.core.types import Float32Array, Float64Array, Int64Array
from worker.errors import ConfigError
from worker.model.calibration import CALIBRATED_ACTIVATIONS, Calibration, Program, forecasts_of, log_odds
from worker.model.early_decisions import counted_decisions, no_decisions

SEQUENCES_MIN = 20
"""Below it not even the base rate is known to within a tenth."""

EVIDENCE_MIN = 3.0
"""A slope whose F statistic is below it is taken as 0; on sequences of pure noise one in ten exceeds it."""

SLOPE_PENALTY = 10.0
"""Pull of a slope to the regression's. A sequence weighs at most 1/4, so 40 sequences begin to move it."""

FINAL_LOG_ODDS_MAX = 20.0
"""Beyond it a float32 probability is 0 or 1; one extreme sequence must not decide the regression."""

WEIGHT_MIN = 1e-4
"""Floor of a sequence's weight in the Newton step: keeps the step bounded where all are certain; not in the result."""

STEP_MIN = 1e-9
"""A Newton step halved to less than this has no descent left but rounding."""

ROUNDING = 1e-12
"""Relative; an objective that is worse by less has not become worse."""

ITERATIONS_MAX = 100
"""Ten do, but for log-odds in the hundreds, where steps are slow; the best found so far is taken, always a descent."""

FOLDS = 5

STEP_ROWS_MAX = 1024
"""Sequences stepped at once; bounds memory."""


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
            logits[rows, t], state = program.step(features[rows, t], state, steps)
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
    if 1 < program.computed_from == program.timesteps:
        raise ConfigError(f"{model_path} says nothing before its last step", "serve it as it is")
    return program.timesteps


def check_logits(logits: Float32Array) -> None:
    """Raises ConfigError where logits (N, T, K) cannot be fitted: too few sequences, or not finite."""
    sequences = len(logits)
    if sequences < SEQUENCES_MIN:
        raise ConfigError(
            f"{sequences} complete sequences are too few to calibrate on", f"give at least {SEQUENCES_MIN}"
        )
    if not np.isfinite(logits).all():
        raise ConfigError("the model's logits on these sequences are not finite", "check the data for extreme values")


def fit_calibration(
    program: Program, logits: Float32Array, method: str, cross_fit: CrossFit | None = None
) -> Calibration:
    """Fit on logits (N, T, K) of N complete sequences; step T's are the target. Deterministic.

    `cross_fit` of the same logits shows what early decisions do; without it the calibration promises none. Raises
    ConfigError as `check_logits`.
    """
    check_logits(logits)
    table = _fit(_odds(logits, program.activation))
    decisions = no_decisions()
    if cross_fit is not None and (program.outputs == 1 or program.activation == "softmax"):
        decisions = counted_decisions(published_paths(program, logits, cross_fit.forecasts), cross_fit.recordings)
    return Calibration(
        fingerprint=program.fingerprint,
        timesteps=logits.shape[1],
        outputs=logits.shape[2],
        activation=program.activation,
        method=method,
        sequences=len(logits),
        intercepts=table[:, 0],
        slopes=table[:, 1],
        lowest=table[:, 2],
        highest=table[:, 3],
        decided_early=decisions.recordings,
        taken_back=np.round(decisions.taken_back, 6),
    )


def published_paths(program: Program, logits: Float32Array, forecasts: Float32Array) -> Float32Array:
    """(N, T, K) what a worker publishes with these forecasts (N, T - 1, K); NaN before there is anything to say."""
    paths = np.concatenate([forecasts, program.outputs_of(logits[:, -1])[:, None]], axis=1)
    paths[:, : program.computed_from - 1] = np.nan
    return paths


@dataclass(frozen=True, slots=True)
class Folds:
    """Which part each sequence is left out with."""

    of_sequence: Int64Array
    """(N,), from 0 on."""
    by_recording: bool
    """Whether recordings are left out whole; else one is so large that little would remain."""


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Forecasts of each sequence by a calibration that was fitted without it, to evaluate the method."""

    forecasts: Float32Array
    """(N, T - 1, K)."""
    recordings: Int64Array
    """(N,) the number of each sequence's recording, from 0 on."""
    by_recording: bool
    """As in `Folds`."""


def cross_fitted(
    logits: Float32Array, activation: str, recordings: Sequence[str], on_progress: Callable[[int], None] | None = None
) -> CrossFit:
    """logits (N, T, K) of sequences of these recordings (N,).

    `on_progress` is called with the number of sequences that were forecast since its last call, N in all.
    """
    folds = folds_of(logits[:, -1], recordings)
    odds, forecasts = _odds(logits, activation), np.empty_like(logits[:, :-1])
    for fold in range(int(folds.of_sequence.max()) + 1):
        mine = folds.of_sequence == fold
        forecasts[mine] = forecasts_of(_fit(odds[~mine]).astype(np.float32), activation, logits[mine])
        if on_progress is not None:
            on_progress(int(mine.sum()))
    _, numbers = np.unique(np.asarray(recordings), return_inverse=True)
    return CrossFit(forecasts, numbers, folds.by_recording)


def folds_of(final_logits: Float32Array, recordings: Sequence[str]) -> Folds:
    """Recordings are kept together, dealt out in order of the final logits (N, K) so that folds are alike.

    Where a fold would leave less than half of the sequences to fit on, sequences are dealt out one by one.
    """
    _, members = np.unique(np.asarray(recordings), return_inverse=True)
    folds = _dealt(final_logits, members)
    if 2 * int(np.bincount(folds).max()) <= len(folds):
        return Folds(folds, by_recording=True)
    return Folds(_dealt(final_logits, np.arange(len(folds))), by_recording=False)


def _dealt(final_logits: Float32Array, members: Int64Array) -> Int64Array:
    """Fold of each sequence from the number of what it is kept together with."""
    count = int(members.max()) + 1
    means = np.bincount(members, weights=final_logits.astype(np.float64).sum(axis=1)) / np.bincount(members)
    fold_of_member = np.empty(count, np.int64)
    fold_of_member[np.argsort(means, kind="stable")] = np.arange(count) % min(FOLDS, count)
    folds: Int64Array = fold_of_member[members]
    return folds


def _odds(logits: Float32Array, activation: str) -> Float64Array:
    """Log-odds (N, T, K) of logits (N, T, K)."""
    flat = logits.reshape(-1, logits.shape[2]).astype(np.float64)
    return np.asarray(log_odds(flat, activation), np.float64).reshape(logits.shape)


def _fit(odds: Float64Array) -> Float64Array:
    """(T - 1, 4, K) intercept, slope, lowest, highest from log-odds (N, T, K), to the 9 digits that float32 keeps."""
    table = np.stack([_fit_output(odds[:, :, k]) for k in range(odds.shape[2])], axis=2)
    rounded: Float64Array = np.vectorize(lambda number: float(f"{number:.9g}"), otypes=[np.float64])(table)
    return rounded


def _fit_output(odds: Float64Array) -> Float64Array:
    """(T - 1, 4) from one output's log-odds (N, T)."""
    before, final = odds[:, :-1], np.clip(odds[:, -1], -FINAL_LOG_ODDS_MAX, FINAL_LOG_ODDS_MAX)
    mean = before.mean(axis=0)
    deviation = before.std(axis=0, ddof=1)
    # Sums that differ by rounding alone carry nothing; 1 keeps the division harmless.
    scale = np.where(deviation > 1e-6 * (1 + np.abs(mean)), deviation, 1.0)
    standard = np.where(scale == deviation, (before - mean) / scale, 0.0)
    slopes = _regression(standard, final)
    intercepts, slopes = _corrected(standard, final, slopes)
    table = np.stack([intercepts - slopes * mean / scale, slopes / scale, before.min(axis=0), before.max(axis=0)])
    return np.ascontiguousarray(table.T)


def _regression(standard: Float64Array, final: Float64Array) -> Float64Array:
    """Slopes (T - 1,) of the logit of E[p_T | x] by linear regression of the final log-odds on x = standard (N, T - 1).

    Given x, the final log-odds are about normal with mean g x + const and variance v; the mean of the sigmoid of such
    a variable is close to sigmoid(mean / sqrt(1 + pi v / 8)). The correlation is shrunk by 1 - EVIDENCE_MIN / F.
    """
    count = len(final)
    spread = final.std(ddof=1)
    if spread == 0:
        return np.zeros(standard.shape[1])
    correlation = (standard * (final - final.mean())[:, None]).sum(axis=0) / ((count - 1) * spread)
    squared = np.minimum(correlation**2, 1.0)
    # F = r² (N - 2) / (1 - r²), written so that neither r = 0 nor r = 1 divides by zero.
    evidence = squared * (count - 2)
    against = EVIDENCE_MIN * (1 - squared)
    shrunk = correlation * np.where(evidence > against, 1 - against / np.maximum(evidence, 1e-300), 0.0)
    variance = spread**2 * (1 - shrunk**2) * (count - 1) / (count - 2) * (1 + 1 / count)
    slopes: Float64Array = shrunk * spread / np.sqrt(1 + np.pi * variance / 8)
    return slopes


def _corrected(standard: Float64Array, final: Float64Array, prior: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Intercepts and slopes (T - 1,) by logistic regression on the final probabilities, each step on its own.

    Newton's method on the cross-entropy to p_T plus a quadratic penalty on slope - prior; the problem is convex. The
    targets are mixed with the base rate as if one more sequence were known of which nothing else is: N sequences
    cannot show that an event is rarer than about 1 in N. A penalty on changes from step to step was tried and left
    out: sums are smooth already, and its cross-fitted log loss was the same.
    """
    count, steps = standard.shape
    targets = 1 / (1 + np.exp(-final))
    base = (count * targets.mean() + 0.5) / (count + 1)
    targets = (targets + (base - targets) / (count + 2))[:, None]

    def objective(parameters: Float64Array) -> Float64Array:
        odds = parameters[:, 0] + parameters[:, 1] * standard
        # log(1 + e^x), in a third of the time that logaddexp takes
        softplus = np.maximum(odds, 0) + np.log1p(np.exp(-np.abs(odds)))
        loss: Float64Array = (softplus - targets * odds).sum(axis=0)
        return loss + SLOPE_PENALTY / 2 * (parameters[:, 1] - prior) ** 2

    parameters = np.stack([np.full(steps, np.log(base / (1 - base))), prior], axis=1)
    values = objective(parameters)
    for _ in range(ITERATIONS_MAX):
        change = _newton_step(parameters, prior, standard, targets)
        trial = objective(parameters - change)
        while (worse := trial > values + ROUNDING * (1 + np.abs(values))).any() and np.abs(
            change[worse]
        ).max() > STEP_MIN:
            change[worse] /= 2
            trial = objective(parameters - change)
        change[worse], trial[worse] = 0.0, values[worse]
        parameters, gained, values = parameters - change, values - trial, trial
        if (gained <= 1e-10 * (1 + np.abs(values))).all():
            break
    return parameters[:, 0], parameters[:, 1]


def _newton_step(
    parameters: Float64Array, prior: Float64Array, standard: Float64Array, targets: Float64Array
) -> Float64Array:
    """What to subtract from the parameters (steps, 2): inverse Hessian times gradient, a 2 x 2 system per step."""
    odds = np.clip(parameters[:, 0] + parameters[:, 1] * standard, -700, 700)  # exp overflows at 710
    probabilities = 1 / (1 + np.exp(-odds))
    residuals = probabilities - targets
    weights = np.maximum(probabilities * (1 - probabilities), WEIGHT_MIN)
    gradient = np.stack([residuals.sum(axis=0), (residuals * standard).sum(axis=0)], axis=1)
    gradient[:, 1] += SLOPE_PENALTY * (parameters[:, 1] - prior)
    curvature = np.empty((len(parameters), 2, 2))
    curvature[:, 0, 0] = weights.sum(axis=0)
    curvature[:, 0, 1] = curvature[:, 1, 0] = (weights * standard).sum(axis=0)
    curvature[:, 1, 1] = (weights * standard**2).sum(axis=0) + SLOPE_PENALTY
    step: Float64Array = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
    return step
