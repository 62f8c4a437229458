"""From what is known at a step to the final predictor, linearly: ridge regression, chosen by cross-validation.

All is done on sums of products, which add up over parts of the data: leaving one out costs a subtraction, so every
choice can be tested on what it was not made with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.core.types import Float64Array, Int64Array

PENALTIES = (0.001, 0.01, 0.1, 1.0)
"""Of standardised columns, as shares of the number of columns over CROWDED, if there are more."""
CROWDED = 10
SPREAD_MIN = 0.01
"""Of a column, as a share of its mean: float32 keeps too little of one that varies less."""


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """intercepts (K,), slopes (R, K) float64 on the R columns known at a step."""

    intercepts: Float64Array
    slopes: Float64Array

    def of(self, known: Float64Array) -> Float64Array:
        """known (N, R) → (N, K)."""
        predicted: Float64Array = self.intercepts + known @ self.slopes
        return predicted


def sums_of_products(known: Float64Array, final: Float64Array) -> Float64Array:
    """Of the columns 1, known (N, R), final (N, K), each with each: (1 + R + K, 1 + R + K)."""
    columns = np.concatenate([np.ones((len(known), 1)), known, final], axis=1)
    products: Float64Array = columns.T @ columns
    return products


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """A regression of all parts, and what it predicts for each sequence when it is made without the sequence's part."""

    linear: Linear
    without_own_part: Float64Array
    """(N, K)."""


def choose(known: Float64Array, final: Float64Array, part_of: Int64Array, products: dict[int, Float64Array]) -> Chosen:
    """The regression of final (N, K) on known (N, R) that predicts parts it was not made with best.

    The first K columns of `known` are the model's own predictors so far. Without any regression these are what is
    known; one is taken where the parts agree that it is better, by more than the standard error of their mean.
    `part_of` (N,) is the part of each sequence, `products` its `sums_of_products`.
    """
    outputs, width = final.shape[1], known.shape[1]
    own = np.arange(outputs)
    total = sum(products.values(), start=np.zeros_like(next(iter(products.values()))))
    plain = [_own_only(total - part, outputs, width) for part in products.values()]
    costs = _costs(plain, products)
    chosen, most = None, 0.0
    for candidate in _candidates(own, width):
        found = [ridge(total - part, outputs, *candidate) for part in products.values()]
        better = costs - _costs(found, products)
        if better.mean() > max(most, better.std(ddof=1) / np.sqrt(len(better))):
            chosen, most = candidate, float(better.mean())
    if chosen is None:
        return Chosen(Linear(np.zeros(outputs), np.eye(width, outputs)), known[:, :outputs])
    predicted = np.empty_like(final)
    for number, part in products.items():
        mine = part_of == number
        predicted[mine] = ridge(total - part, outputs, *chosen).of(known[mine])
    return Chosen(ridge(total, outputs, *chosen), predicted)


def _candidates(own: Int64Array, width: int) -> list[tuple[Int64Array, float]]:
    """Columns and penalty: of several outputs their own predictors together, and all that is known."""
    found = [(own, penalty) for penalty in PENALTIES[:2] if len(own) > 1]
    crowd = max(1.0, (width - len(own)) / CROWDED)
    if width > len(own):
        found += [(np.arange(width), penalty * crowd) for penalty in PENALTIES]
    return found


def ridge(products: Float64Array, outputs: int, columns: Int64Array, penalty: float) -> Linear:
    """Penalised least squares of the final predictors on these of the known columns, which are standardised for it."""
    width = len(products) - 1 - outputs
    mean = products[0] / products[0, 0]
    moments = products / products[0, 0] - np.outer(mean, mean)
    finals = np.arange(1 + width, len(products))
    used = 1 + columns
    used = used[np.diag(moments)[used] > (SPREAD_MIN * mean[used]) ** 2 + 1e-12]
    slopes = np.zeros((width, outputs))
    if len(used):
        spread = np.sqrt(np.diag(moments)[used])
        correlations = moments[np.ix_(used, used)] / np.outer(spread, spread)
        against = moments[np.ix_(used, finals)] / spread[:, None]
        slopes[used - 1] = np.linalg.solve(correlations + penalty * np.eye(len(used)), against) / spread[:, None]
    return Linear(mean[finals] - mean[1 : 1 + width] @ slopes, slopes)


def _own_only(products: Float64Array, outputs: int, width: int) -> Linear:
    """Each final predictor on its own predictor so far."""
    slopes = np.zeros((width, outputs))
    intercepts = np.empty(outputs)
    for k in range(outputs):
        one = ridge(products, outputs, np.array([k]), PENALTIES[0])
        slopes[:, k], intercepts[k] = one.slopes[:, k], one.intercepts[k]
    return Linear(intercepts, slopes)


def _costs(found: Sequence[Linear], products: dict[int, Float64Array]) -> Float64Array:
    """Mean squared error (parts,) of each regression on the part that it was made without."""
    costs = []
    for linear, part in zip(found, products.values(), strict=True):
        outputs = len(linear.intercepts)
        errors = np.concatenate([-linear.intercepts[None], -linear.slopes, np.eye(outputs)])
        costs.append(float((errors * (part @ errors)).sum() / part[0, 0]))
    return np.array(costs)
