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
    total = sum(products.values(), start=np.zeros_like(next(iter(products.values()))))
    rest = {number: total - part for number, part in products.items()}
    costs = _costs([_own_only(each, outputs, width) for each in rest.values()], products)
    chosen, most = None, 0.0
    for columns, penalties in _candidates(outputs, width):
        prepared = [Ridge.of(each, outputs, columns) for each in rest.values()]
        for penalty in penalties:
            better = costs - _costs([each.linear(penalty) for each in prepared], products)
            if better.mean() > max(most, better.std(ddof=1) / np.sqrt(len(better))):
                chosen, most = (columns, penalty), float(better.mean())
    if chosen is None:
        return Chosen(Linear(np.zeros(outputs), np.eye(width, outputs)), known[:, :outputs])
    columns, penalty = chosen
    predicted = np.empty_like(final)
    for number, each in rest.items():
        mine = part_of == number
        predicted[mine] = Ridge.of(each, outputs, columns).linear(penalty).of(known[mine])
    return Chosen(Ridge.of(total, outputs, columns).linear(penalty), predicted)


def _candidates(outputs: int, width: int) -> list[tuple[Int64Array, list[float]]]:
    """Columns and penalties: of several outputs their own predictors together, and all that is known."""
    found = [(np.arange(outputs), list(PENALTIES[:2]))] if outputs > 1 else []
    crowd = max(1.0, (width - outputs) / CROWDED)
    if width > outputs:
        found.append((np.arange(width), [penalty * crowd for penalty in PENALTIES]))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Ridge:
    """Penalised least squares of the final predictors on some of the known columns, which are standardised for it."""

    mean: Float64Array
    """(R + K,) of the known columns and the final predictors."""
    used: Int64Array
    """Of the columns those that vary."""
    spread: Float64Array
    correlations: Float64Array
    against: Float64Array
    """Of the used columns with each other and, (used, K), with the final predictors."""

    @classmethod
    def of(cls, products: Float64Array, outputs: int, columns: Int64Array) -> Ridge:
        """Of `sums_of_products`."""
        mean = products[0, 1:] / products[0, 0]
        squares = np.diag(products)[1:] / products[0, 0]
        variance = (squares - mean * mean)[columns]
        used = columns[variance > (SPREAD_MIN * mean[columns]) ** 2 + 1e-12]
        spread = np.sqrt((squares - mean * mean)[used])
        finals = np.arange(len(mean) - outputs, len(mean))
        moments = products[np.ix_(1 + used, np.concatenate([1 + used, 1 + finals]))] / products[0, 0]
        moments -= np.outer(mean[used], np.concatenate([mean[used], mean[finals]]))
        moments /= spread[:, None]
        return cls(mean, used, spread, moments[:, : len(used)] / spread, moments[:, len(used) :])

    def linear(self, penalty: float) -> Linear:
        """With this penalty on the slopes of the standardised columns."""
        outputs = self.against.shape[1]
        slopes = np.zeros((len(self.mean) - outputs, outputs))
        if len(self.used):
            penalised = self.correlations + penalty * np.eye(len(self.used))
            slopes[self.used] = np.linalg.solve(penalised, self.against) / self.spread[:, None]
        return Linear(self.mean[-outputs:] - self.mean[:-outputs] @ slopes, slopes)


def _own_only(products: Float64Array, outputs: int, width: int) -> Linear:
    """Each final predictor on its own predictor so far."""
    slopes = np.zeros((width, outputs))
    intercepts = np.empty(outputs)
    for k in range(outputs):
        one = Ridge.of(products, outputs, np.array([k])).linear(PENALTIES[0])
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
