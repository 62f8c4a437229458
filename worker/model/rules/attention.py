"""Attention pooling: the average of a sequence, weighted by the softmax over time of a score of each step.

The softmax is carried along as it is for blocks of one long row: the largest score so far, and sums relative to it
(M. Milakov, N. Gimelshein: Online normalizer calculation for softmax, 2018).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.model.program import Node
from worker.model.rules.context import Layer


def attention_pooling(layer: Layer, scores: int, mean: bool) -> Node:
    """Of the values (scores, sequence): one score a step, or one for each feature.

    State: largest score, sum of the weights, weighted sum; with `mean` also the number of steps, by which the answer is
    divided.
    """
    width = layer.width

    def step(xp: Any, x: Any, state: Any, steps: Any) -> Any:
        score, values = x
        largest = xp.where((steps == 1)[:, None], score, xp.maximum(state[:, :scores], score))
        # Where there is nothing yet to be kept, the difference may be large and the power not a number.
        kept = xp.exp(xp.minimum(state[:, :scores] - largest, 0))
        weight = xp.exp(score - largest)
        total = state[:, scores : 2 * scores] * kept + weight
        weighted = state[:, 2 * scores : 2 * scores + width] * kept + weight * values
        after = xp.concatenate([largest, total, weighted, state[:, 2 * scores + width :] + 1], axis=1)
        return held(xp, after), after

    def held(xp: Any, state: Any) -> Any:
        del xp
        average = state[:, 2 * scores : 2 * scores + width] / state[:, scores : 2 * scores]
        return average / state[:, 2 * scores + width :] if mean else average

    def whole(x: Any) -> Any:
        score, values = x
        out = np.empty(values.shape)
        for t in range(1, values.shape[1] + 1):
            powers = np.exp(score[:, :t] - score[:, :t].max(axis=1, keepdims=True))
            weighted = (powers / powers.sum(axis=1, keepdims=True)) * values[:, :t]
            out[:, t - 1] = weighted.mean(axis=1) if mean else weighted.sum(axis=1)
        return out

    return Node(layer.name, layer.class_name, "last", width, 2 * scores + width + mean, step, whole, held=held)
