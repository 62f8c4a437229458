"""LSTM, GRU and SimpleRNN.

Equations and gate orders as Keras stores them: LSTM i, f, c, o; GRU z, r, h (`reset_after` multiplies the reset gate
after the recurrent product, with a bias of its own).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.errors import ModelNotStreamable
from worker.model.activations import activation
from worker.model.program import Node
from worker.model.rules.context import Layer, biased, shaped


def _check_recurrent(layer: Layer) -> None:
    if layer.config.get("go_backwards"):
        raise layer.refused("it reads the sequence backwards, so its first step needs the last sample")
    if layer.config.get("return_state"):
        raise layer.refused("it also returns its state", "build the model without return_state")


def _cut(layer: Layer) -> str:
    return "sequence" if layer.config.get("return_sequences") else "last"


def lstm(layer: Layer) -> Node:
    """State: h, c."""
    _check_recurrent(layer)
    units = int(layer.config["units"])
    kernel, recurrent = shaped(layer, [(layer.width, 4 * units), (units, 4 * units)])
    bias = biased(layer, 2, (4 * units,))
    names = layer.config.get("activation", "tanh"), layer.config.get("recurrent_activation", "sigmoid")
    inner = activation(names[0], layer.name, layer.keras_major)
    gate = activation(names[1], layer.name, layer.keras_major)

    if names == ("tanh", "sigmoid"):
        step = _fused_lstm(kernel, recurrent, bias, units)
    else:

        def step(x: Any, state: Any, steps: Any) -> tuple[Any, Any]:
            del steps
            h, c = state[:, :units], state[:, units:]
            i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4, axis=1)
            c = gate(np, f) * c + gate(np, i) * inner(np, g)
            h = gate(np, o) * inner(np, c)
            return h, np.concatenate([h, c], axis=1)

    def whole(x: Any) -> Any:
        k, r, b = kernel.astype(np.float64), recurrent.astype(np.float64), bias.astype(np.float64)
        h = np.zeros((len(x), units))
        c = np.zeros((len(x), units))
        out = np.empty((*x.shape[:2], units))
        for t in range(x.shape[1]):
            z = x[:, t] @ k + h @ r + b
            i, f = gate(np, z[:, :units]), gate(np, z[:, units : 2 * units])
            c = f * c + i * inner(np, z[:, 2 * units : 3 * units])
            h = gate(np, z[:, 3 * units :]) * inner(np, c)
            out[:, t] = h
        return out

    return Node(layer.name, "LSTM", _cut(layer), units, 2 * units, step, whole)


def _fused_lstm(kernel: Any, recurrent: Any, bias: Any, units: int) -> Any:
    """One product and one tanh for all gates: sigmoid(v) = tanh(v/2)/2 + 1/2, its first 1/2 folded into the weights."""
    order = np.r_[0:units, units : 2 * units, 3 * units : 4 * units, 2 * units : 3 * units]
    scale = np.concatenate([np.full(3 * units, 0.5), np.ones(units)]).astype(np.float32)
    stacked = np.ascontiguousarray(np.concatenate([kernel, recurrent])[:, order] * scale, np.float32)
    offset = (bias[order] * scale).astype(np.float32)
    half = np.float32(0.5)

    def step(x: Any, state: Any, steps: Any) -> tuple[Any, Any]:
        del steps
        z = np.concatenate([x, state[:, :units]], axis=1) @ stacked
        z += offset
        np.tanh(z, out=z)
        gates = z[:, : 3 * units]
        gates *= half
        gates += half
        after = np.empty((len(z), 2 * units), np.float32)
        h, c = after[:, :units], after[:, units:]
        np.multiply(z[:, units : 2 * units], state[:, units:], out=c)
        c += z[:, :units] * z[:, 3 * units :]
        np.tanh(c, out=h)
        h *= z[:, 2 * units : 3 * units]
        return h, after

    return step


def gru(layer: Layer) -> Node:
    """State: h."""
    _check_recurrent(layer)
    units = int(layer.config["units"])
    reset_after = bool(layer.config.get("reset_after", False))
    kernel, recurrent = shaped(layer, [(layer.width, 3 * units), (units, 3 * units)])
    both = biased(layer, 2, (2, 3 * units) if reset_after else (3 * units,))
    bias, recurrent_bias = (both[0], both[1]) if reset_after else (both, np.zeros_like(both))
    inner = activation(layer.config.get("activation", "tanh"), layer.name, layer.keras_major)
    gate = activation(layer.config.get("recurrent_activation", "sigmoid"), layer.name, layer.keras_major)

    def cell(x: Any, h: Any, k: Any, r: Any, b: Any, rb: Any) -> Any:
        a = x @ k + b
        if reset_after:
            m = h @ r + rb
            z = gate(np, a[:, :units] + m[:, :units])
            reset = gate(np, a[:, units : 2 * units] + m[:, units : 2 * units])
            candidate = inner(np, a[:, 2 * units :] + reset * m[:, 2 * units :])
        else:
            z = gate(np, a[:, :units] + h @ r[:, :units])
            reset = gate(np, a[:, units : 2 * units] + h @ r[:, units : 2 * units])
            candidate = inner(np, a[:, 2 * units :] + (reset * h) @ r[:, 2 * units :])
        return z * h + (1 - z) * candidate

    def step(x: Any, state: Any, steps: Any) -> tuple[Any, Any]:
        del steps
        h = cell(x, state, kernel, recurrent, bias, recurrent_bias)
        return h, h

    def whole(x: Any) -> Any:
        wide = [each.astype(np.float64) for each in (kernel, recurrent, bias, recurrent_bias)]
        h = np.zeros((len(x), units))
        out = np.empty((*x.shape[:2], units))
        for t in range(x.shape[1]):
            out[:, t] = h = cell(x[:, t], h, *wide)
        return out

    return Node(layer.name, "GRU", _cut(layer), units, units, step, whole)


def simple_rnn(layer: Layer) -> Node:
    """State: h."""
    _check_recurrent(layer)
    units = int(layer.config["units"])
    kernel, recurrent = shaped(layer, [(layer.width, units), (units, units)])
    bias = biased(layer, 2, (units,))
    inner = activation(layer.config.get("activation", "tanh"), layer.name, layer.keras_major)

    def step(x: Any, state: Any, steps: Any) -> tuple[Any, Any]:
        del steps
        h = inner(np, x @ kernel + state @ recurrent + bias)
        return h, h

    def whole(x: Any) -> Any:
        h = np.zeros((len(x), units))
        out = np.empty((*x.shape[:2], units))
        for t in range(x.shape[1]):
            z = x[:, t] @ kernel.astype(np.float64) + h @ recurrent.astype(np.float64) + bias.astype(np.float64)
            out[:, t] = h = inner(np, z)
        return out

    return Node(layer.name, "SimpleRNN", _cut(layer), units, units, step, whole)


def not_streamable(layer: Layer) -> Node:
    """For layers that need the whole sequence at once."""
    raise ModelNotStreamable(f"layer {layer.name!r} ({layer.class_name}) needs the whole sequence")
