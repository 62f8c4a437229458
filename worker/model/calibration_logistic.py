"""From a predictor of the final one to probabilities that are right on average: logistic regression on soft targets.

It starts from a linear regression turned into a probability (`first_slopes`), which sees how far predictors are apart
and needs few sequences, and is corrected by a penalised logistic regression on the final probabilities (`corrected`),
which makes the mean right and takes over as sequences become many. What the data do not show shrinks to the base rate.
"""

from __future__ import annotations

import numpy as np

from worker.core.types import Float64Array
from worker.model.activations import sigmoid, softmax

EVIDENCE_MIN = 3.0
"""A slope whose F statistic is below it is taken as 0; on sequences of pure noise one in ten exceeds it."""

SPREAD_MIN = 1e-4
"""Of predictors, as a share of their mean; float32 adds 1e-7 of it, and the slope undoes the share."""

SLOPE_PENALTY = 10.0
"""Pull of a slope to the regression's. A sequence weighs at most 1/4, so 40 sequences begin to move it."""

INTERCEPT_PENALTY = 1e-3
"""Pull of an intercept to the base rate's: of classes only their differences count, this keeps the rest in place."""

WEIGHT_MIN = 1e-4
"""Floor of a sequence's weight in the Newton step: keeps the step bounded where all are certain; not in the result."""

STEP_MIN = 1e-9
"""A Newton step shortened to less than this share has no descent left but rounding."""

ROUNDING = 1e-12
"""Relative; an objective that is worse by less has not become worse."""

ITERATIONS_MAX = 100
"""Ten do, but for predictors in the hundreds, where steps are slow; the best found so far is always a descent."""


def fitted(predictors: Float64Array, finals: Float64Array, activation: str) -> tuple[Float64Array, Float64Array]:
    """Intercepts (K,) and slopes (K,) of the forecast's predictors on `predictors` (N, K), for `finals` (N, K).

    Forecasts are sigmoids of K numbers each on its own, or one softmax of all.
    """
    mean, deviation = predictors.mean(axis=0), predictors.std(axis=0, ddof=1)
    # What float32 hardly tells apart carries nothing; 1 keeps the division harmless.
    varies = deviation > np.maximum(1e-6, SPREAD_MIN * np.abs(mean))
    scale = np.where(varies, deviation, 1.0)
    standard = np.where(varies, (predictors - mean) / scale, 0.0)
    prior = np.array([first_slope(standard[:, k], finals[:, k]) for k in range(finals.shape[1])])
    targets = np.asarray(softmax(np, finals) if activation == "softmax" else sigmoid(np, finals), np.float64)
    if activation == "softmax":
        intercepts, slopes = corrected(standard, targets, prior, classes=True)
    else:
        each = [corrected(standard[:, [k]], targets[:, [k]], prior[[k]]) for k in range(finals.shape[1])]
        intercepts, slopes = (np.concatenate(parts) for parts in zip(*each, strict=True))
    return intercepts - slopes * mean / scale, slopes / scale


def first_slope(standard: Float64Array, final: Float64Array) -> float:
    """Slope of the predictor of E[p_T | x] by linear regression of the final one (N,) on x = standard (N,).

    Given x, the final log-odds are about normal with mean g x + const and variance v; the mean of the sigmoid of such
    a variable is close to sigmoid(mean / sqrt(1 + pi v / 8)). The correlation is shrunk by 1 - EVIDENCE_MIN / F.
    """
    count, spread = len(final), final.std(ddof=1)
    if spread == 0:
        return 0.0
    correlation = float((standard * (final - final.mean())).sum() / ((count - 1) * spread))
    squared = min(correlation**2, 1.0)
    # F = r² (N - 2) / (1 - r²), written so that neither r = 0 nor r = 1 divides by zero.
    evidence, against = squared * (count - 2), EVIDENCE_MIN * (1 - squared)
    shrunk = correlation * (1 - against / evidence) if evidence > against else 0.0
    variance = spread**2 * (1 - shrunk**2) * (count - 1) / (count - 2) * (1 + 1 / count)
    return float(shrunk * spread / np.sqrt(1 + np.pi * variance / 8))


def corrected(
    standard: Float64Array,
    targets: Float64Array,
    prior: Float64Array,
    *,
    classes: bool = False,
    penalty: float = SLOPE_PENALTY,
) -> tuple[Float64Array, Float64Array]:
    """Intercepts (K,) and slopes (K,) by logistic regression of targets (N, K) in 0..1 on standard (N, K).

    Newton's method on the cross-entropy plus quadratic penalties on slopes - prior and on intercepts off the base
    rate's; the problem is convex. Of one number a sigmoid, of `classes` a softmax. The targets are mixed as if one
    more sequence were known that may have ended in any way: N sequences cannot show that an event is rarer than about
    1 in 2 N.
    """
    count, outputs = standard.shape
    even = 1 / outputs if classes else 0.5
    base = (count * targets.mean(axis=0) + even) / (count + 1)
    targets = targets + (even - targets) / (count + 1)
    start = np.concatenate([np.log(base) if classes else np.log(base / (1 - base)), prior])
    pull = np.repeat([INTERCEPT_PENALTY if classes else 0.0, penalty], outputs)

    def objective(parameters: Float64Array) -> float:
        predictors = parameters[:outputs] + parameters[outputs:] * standard
        most = predictors.max(axis=1, keepdims=True) if classes else np.maximum(predictors, 0)
        rest = np.exp(predictors - most)
        total = rest.sum(axis=1, keepdims=True) if classes else rest + np.exp(-most)
        loss = (most + np.log(total)).sum() - (targets * predictors).sum()
        return float(loss + (pull * (parameters - start) ** 2).sum() / 2)

    parameters, value = start, objective(start)
    for _ in range(ITERATIONS_MAX):
        change = _newton_step(parameters, start, pull, standard, targets, classes=classes)
        share = 1.0
        while (trial := objective(parameters - share * change)) > value + ROUNDING * (1 + abs(value)):
            share /= 2
            if share < STEP_MIN:
                return parameters[:outputs], parameters[outputs:]
        gained, parameters, value = value - trial, parameters - share * change, trial
        if gained <= 1e-10 * (1 + abs(value)):
            break
    return parameters[:outputs], parameters[outputs:]


def _newton_step(
    parameters: Float64Array,
    start: Float64Array,
    pull: Float64Array,
    standard: Float64Array,
    targets: Float64Array,
    *,
    classes: bool,
) -> Float64Array:
    """What to subtract from the parameters (2 K,): inverse Hessian times gradient."""
    count, outputs = standard.shape
    predictors = parameters[:outputs] + parameters[outputs:] * standard
    p = np.asarray((softmax if classes else sigmoid)(np, predictors), np.float64)
    residuals = p - targets
    gradient = np.concatenate([residuals.sum(axis=0), (residuals * standard).sum(axis=0)]) + pull * (parameters - start)
    weights = p if classes else np.maximum(p * (1 - p), WEIGHT_MIN)
    blocks = [np.diag((weights * power).sum(axis=0)) for power in (np.ones_like(standard), standard, standard**2)]
    curvature = np.block([[blocks[0], blocks[1]], [blocks[1], blocks[2]]])
    if classes:
        both = np.concatenate([p, p * standard], axis=1)
        curvature += count * WEIGHT_MIN * np.eye(2 * outputs) - both.T @ both
    step: Float64Array = np.linalg.solve(curvature + np.diag(pull), gradient)
    return step
