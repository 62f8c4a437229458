"""LSTM, GRU and SimpleRNN.

Equations and gate orders as Keras stores them: LSTM i, f, c, o; GRU z, r, h (`reset_after` multiplies the reset gate
after the recurrent product, with a bias of its own).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.model.activations import Function, activation_name
from worker.model.files.weights import Array
from worker.model.kernel.operations import KernelOp, Operation, activation_code
from worker.model.program import Node
from worker.model.rules.activation import activation
from worker.model.rules.context import OR_BUFFER, Layer, weighted
from worker.model.scratch import Scratch


def check_recurrent(layer: Layer) -> None:
    """Raises ModelNotStreamable for what no recurrent layer can be stepped with."""
    if layer.flag("go_backwards"):
        raise layer.refused("it reads the sequence backwards, so its first step needs the last sample")
    if layer.flag("return_state"):
        raise layer.refused("it also returns its state", f"build the model without return_state{OR_BUFFER}")
    if layer.flag("time_major"):
        raise layer.refused("it wants time as the first axis", "build the model without time_major")
    layer.check_sequence()


def _unmasked(mask: Any, t: int, new: Any, old: Any) -> Any:
    """A masked step leaves a stream as it was; that is also the layer's output there."""
    return new if mask is None else np.where(mask[:, t, None], new, old)


def _masked(layer: Layer, whole: Any) -> dict[str, Any]:
    """How a node treats masked steps: with the last answer, or with zeros."""
    if not layer.flag("zero_output_for_mask"):
        return {"whole_masked": whole}

    def whole_masked(x: Any, mask: Any) -> Any:
        return whole(x, mask) * mask[..., None]

    return {"whole_masked": whole_masked, "zeros_where_masked": True}


def inner_and_gate(layer: Layer, rank: int = 2) -> tuple[Function, Function]:
    """What the layer makes its candidate and its gates by; `rank` is that of a step with its batch."""
    return (
        activation(layer, "activation", "tanh", rank=rank),
        activation(layer, "recurrent_activation", "sigmoid", rank=rank),
    )


def output_kind(layer: Layer) -> str:
    return "sequence" if layer.flag("return_sequences") else "last"


def _kernel_op(
    layer: Layer, operation: Operation, units: int, weights: tuple[Array, ...], inner: Any, gate: Any
) -> tuple[KernelOp, ...] | None:
    codes = [activation_code(activation_name(name), layer.keras_major) for name in (inner, gate)]
    if codes[0] is None or codes[1] is None:
        return None
    return (KernelOp(operation, layer.width, units, weights, codes[0], codes[1]),)


def lstm(layer: Layer) -> Node:
    """State: h, c."""
    check_recurrent(layer)
    units = layer.units()
    kernel, recurrent, bias = weighted(layer, [(layer.width, 4 * units), (units, 4 * units)], (4 * units,))
    names = layer.config.get("activation", "tanh"), layer.config.get("recurrent_activation", "sigmoid")
    inner, gate = inner_and_gate(layer)

    def step(xp: Any, x: Any, state: Any, steps: Any) -> Any:
        del steps
        h, c = state[:, :units], state[:, units:]
        z = x @ kernel + h @ recurrent + bias
        c = gate(xp, z[:, units : 2 * units]) * c + gate(xp, z[:, :units]) * inner(xp, z[:, 2 * units : 3 * units])
        h = gate(xp, z[:, 3 * units :]) * inner(xp, c)
        return h, xp.concatenate([h, c], axis=1)

    def whole(x: Any, mask: Any = None) -> Any:
        k, r, b = kernel.astype(np.float64), recurrent.astype(np.float64), bias.astype(np.float64)
        h = np.zeros((len(x), units))
        c = np.zeros((len(x), units))
        out = np.empty((*x.shape[:2], units))
        for t in range(x.shape[1]):
            z = x[:, t] @ k + h @ r + b
            i, f = gate(np, z[:, :units]), gate(np, z[:, units : 2 * units])
            cell = f * c + i * inner(np, z[:, 2 * units : 3 * units])
            hidden = gate(np, z[:, 3 * units :]) * inner(np, cell)
            c, h = _unmasked(mask, t, cell, c), _unmasked(mask, t, hidden, h)
            out[:, t] = h
        return out

    # The kernel wants the three sigmoids of i, f, o to lie together.
    parts = [
        np.concatenate([np.split(part, 4, -1)[gate] for gate in (0, 1, 3, 2)], -1) for part in (kernel, recurrent, bias)
    ]
    op = _kernel_op(layer, Operation.LSTM, units, tuple(parts), names[0], names[1])
    usual = (activation_name(names[0]), activation_name(names[1])) == ("tanh", "sigmoid")
    return Node(
        layer.name,
        "LSTM",
        output_kind(layer),
        units,
        2 * units,
        step,
        whole,
        kernel=op,
        held=lambda _, state: state[:, :units],
        **_masked(layer, whole),
        in_place=_fused_lstm(kernel, recurrent, bias, units) if usual else None,
    )


def _fused_lstm(kernel: Any, recurrent: Any, bias: Any, units: int) -> Any:
    """One product and one tanh for all gates: sigmoid(v) = tanh(v/2)/2 + 1/2, its first 1/2 folded into the weights.

    Rows [x, h, 1] meet kernels stacked as [kernel, recurrent, bias], one (features + units + 1, units) a gate, so that
    every gate comes out contiguous.
    """
    features = len(kernel)
    stacked = np.concatenate([kernel, recurrent, bias[None]]).reshape(-1, 4, units).transpose(1, 0, 2)
    # i, f, o, candidate: the three sigmoids lie together.
    gates_first = np.ascontiguousarray(stacked[[0, 1, 3, 2]] * np.array([0.5, 0.5, 0.5, 1])[:, None, None], np.float32)
    inputs, sums, squashed = Scratch(features + units + 1, fill=1), Scratch(4 * units), Scratch(units)
    half = np.float32(0.5)

    def step(x: Any, state: Any, steps: Any) -> Any:
        del steps
        h, c = state[:, :units], state[:, units:]
        joined = inputs.rows(len(x))
        joined[:, :features] = x
        joined[:, features:-1] = h
        z = sums.rows(len(x)).reshape(4, len(x), units)
        np.matmul(joined, gates_first, out=z)
        np.tanh(z, out=z)
        gates = z[:3]
        gates *= half
        gates += half
        i, f, o, candidate = z
        c *= f
        i *= candidate
        c += i
        y = squashed.rows(len(x))
        np.tanh(c, out=y)
        y *= o
        h[...] = y
        return y

    return step


def gru(layer: Layer) -> Node:
    """State: h."""
    check_recurrent(layer)
    units = layer.units()
    reset_after = layer.flag("reset_after")
    bias_shape = (2, 3 * units) if reset_after else (3 * units,)
    kernel, recurrent, both = weighted(layer, [(layer.width, 3 * units), (units, 3 * units)], bias_shape)
    bias, recurrent_bias = (both[0], both[1]) if reset_after else (both, np.zeros_like(both))
    inner, gate = inner_and_gate(layer)

    def cell(xp: Any, x: Any, h: Any, k: Any, r: Any, b: Any, rb: Any) -> Any:
        a = x @ k + b
        if reset_after:
            m = h @ r + rb
            z = gate(xp, a[:, :units] + m[:, :units])
            reset = gate(xp, a[:, units : 2 * units] + m[:, units : 2 * units])
            candidate = inner(xp, a[:, 2 * units :] + reset * m[:, 2 * units :])
        else:
            z = gate(xp, a[:, :units] + h @ r[:, :units])
            reset = gate(xp, a[:, units : 2 * units] + h @ r[:, units : 2 * units])
            candidate = inner(xp, a[:, 2 * units :] + (reset * h) @ r[:, 2 * units :])
        return z * h + (1 - z) * candidate

    def step(xp: Any, x: Any, state: Any, steps: Any) -> Any:
        del steps
        h = cell(xp, x, state, kernel, recurrent, bias, recurrent_bias)
        return h, h

    def whole(x: Any, mask: Any = None) -> Any:
        wide = [each.astype(np.float64) for each in (kernel, recurrent, bias, recurrent_bias)]
        h = np.zeros((len(x), units))
        out = np.empty((*x.shape[:2], units))
        for t in range(x.shape[1]):
            out[:, t] = h = _unmasked(mask, t, cell(np, x[:, t], h, *wide), h)
        return out

    names = layer.config.get("activation", "tanh"), layer.config.get("recurrent_activation", "sigmoid")
    operation = Operation.GRU_RESET_AFTER if reset_after else Operation.GRU_RESET_BEFORE
    # With reset_after off the candidate's product comes after the gates'.
    parts = (kernel, recurrent[:, : 2 * units], recurrent[:, 2 * units :], bias, recurrent_bias)
    op = _kernel_op(layer, operation, units, parts, *names)
    return Node(
        layer.name,
        "GRU",
        output_kind(layer),
        units,
        units,
        step,
        whole,
        kernel=op,
        held=lambda _, state: state,
        **_masked(layer, whole),
    )


def simple_rnn(layer: Layer) -> Node:
    """State: h."""
    check_recurrent(layer)
    units = layer.units()
    kernel, recurrent, bias = weighted(layer, [(layer.width, units), (units, units)], (units,))
    inner = activation(layer, "activation", "tanh", rank=2)

    def step(xp: Any, x: Any, state: Any, steps: Any) -> Any:
        del steps
        h = inner(xp, x @ kernel + state @ recurrent + bias)
        return h, h

    def whole(x: Any, mask: Any = None) -> Any:
        h = np.zeros((len(x), units))
        out = np.empty((*x.shape[:2], units))
        for t in range(x.shape[1]):
            z = x[:, t] @ kernel.astype(np.float64) + h @ recurrent.astype(np.float64) + bias.astype(np.float64)
            out[:, t] = h = _unmasked(mask, t, inner(np, z), h)
        return out

    op = _kernel_op(
        layer, Operation.SIMPLE_RNN, units, (kernel, recurrent, bias), layer.config.get("activation", "tanh"), "linear"
    )
    return Node(
        layer.name,
        "SimpleRNN",
        output_kind(layer),
        units,
        units,
        step,
        whole,
        kernel=op,
        held=lambda _, state: state,
        **_masked(layer, whole),
    )
