"""Dense on a step, on a last step, and on a flattened sequence as a running sum."""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.model.activations import activation_name
from worker.model.files.weights import Array
from worker.model.kernel.operations import KernelOp, Operation, activation_code
from worker.model.program import Node
from worker.model.rules.activation import activation
from worker.model.rules.context import Layer, weighted
from worker.model.rules.elementwise import stateless


def dense(layer: Layer) -> Node:
    """The same product at every step; after Flatten the sum of one kernel slice per step."""
    units = layer.units()
    function = activation(layer, rank=2 if layer.kind == "flat" else None)
    if layer.kind == "flat":
        return _running_sum(layer, units, function)
    kernel, bias = weighted(layer, [(layer.width, units)], (units,))

    kernel_op = _kernel_op(layer, Operation.DENSE, units, (kernel, bias))
    return stateless(layer, lambda xp, x: function(xp, x @ kernel + bias), kernel_op, units)


def _running_sum(layer: Layer, units: int, function: Any) -> Node:
    """Flatten → Dense: logit_T = b + Σ_t W_t·x_t, so the state is the sum so far; exact at step T."""
    timesteps = layer.length("it follows Flatten")
    kernel, bias = weighted(layer, [(timesteps * layer.width, units)], (units,))
    slices = np.ascontiguousarray(kernel.reshape(timesteps, layer.width, units))
    # With one output the parts are a row-wise dot product, many times cheaper than a batch of small matrices.
    single = np.ascontiguousarray(slices[:, :, 0])

    def step(xp: Any, x: Any, state: Any, steps: Any) -> Any:
        # Steps past T repeat its slice: "clip" is also the fastest way to take.
        after = state + xp.einsum("bf,bfk->bk", x, xp.take(slices, steps - 1, axis=0, mode="clip"))
        return held(xp, after), after

    def one_sum(x: Any, state: Any, steps: Any) -> Any:
        state[:, 0] += np.vecdot(x, single.take(steps - 1, axis=0, mode="clip"))
        return held(np, state)

    def whole(x: Any) -> Any:
        parts = np.einsum("ntf,tfk->ntk", x, slices[: x.shape[1]].astype(np.float64))
        return function(np, np.cumsum(parts, axis=1) + bias.astype(np.float64))

    def held(xp: Any, state: Any) -> Any:
        return function(xp, state + bias)

    kernel_op = _kernel_op(layer, Operation.RUNNING_SUM, units, (slices, bias))
    return Node(
        layer.name,
        "Dense",
        "end",
        units,
        units,
        step,
        whole,
        layer.exact(),
        kernel_op,
        held=held,
        in_place=one_sum if units == 1 else None,
    )


def _kernel_op(
    layer: Layer, operation: Operation, units: int, weights: tuple[Array, ...]
) -> tuple[KernelOp, ...] | None:
    code = activation_code(activation_name(layer.config.get("activation")), layer.keras_major)
    return None if code is None else (KernelOp(operation, layer.width, units, weights, code),)
