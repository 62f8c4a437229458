"""ConvLSTM1D and ConvLSTM2D: an LSTM whose products are convolutions within the step.

Equations, padding and gate order i, f, c, o of `keras/src/layers/rnn/conv_lstm.py`: the input's convolution has
padding, strides and dilation, the state's is `same` without them. A step's numbers are in C order, channels last.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from worker.model.files.weights import WAY_OUT, Array
from worker.model.program import Node
from worker.model.rules.context import Layer, is_whole, shown, weighted
from worker.model.rules.recurrent import check_recurrent, inner_and_gate, output_kind

PRODUCTS_MAX = 1 << 22
"""Places that all windows of one step look at."""
BLOCK_NUMBERS = 1 << 15
"""Of the answers of some streams; what is computed on the way to more no longer fits the cache."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One dimension of a step: `size` numbers are looked at by windows of `kernel`, `before` zeros in front of them."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    windows: int


def conv_lstm_1d(layer: Layer) -> Node:
    return _conv_lstm(layer, 1)


def conv_lstm_2d(layer: Layer) -> Node:
    return _conv_lstm(layer, 2)


def _conv_lstm(layer: Layer, rank: int) -> Node:
    """State: h, c, each with the shape of an answer."""
    check_recurrent(layer)
    axes, channels = _axes(layer, rank)
    size, units = [each.kernel for each in axes], layer.whole_number("filters")
    kernel, recurrent, bias = weighted(layer, [(*size, channels, 4 * units), (*size, units, 4 * units)], (4 * units,))
    within = [_axis(layer, each.windows, each.kernel, 1, 1, same=True) for each in axes]
    shape = (*(each.windows for each in axes), units)
    inner, gate = inner_and_gate(layer, rank + 2)
    in_step, in_state = _looked_at(layer, axes), _looked_at(layer, within)
    by_place = kernel.reshape(-1, channels, 4 * units), recurrent.reshape(-1, units, 4 * units)
    floats = prod(shape)

    def step(xp: Any, x: Any, state: Any, steps: Any) -> Any:
        del steps
        h, c = (xp.reshape(each, (-1, floats // units, units)) for each in (state[:, :floats], state[:, floats:]))
        z = _convolved(xp, xp.reshape(x, (-1, layer.width // channels, channels)), in_step, by_place[0])
        z = z + _convolved(xp, h, in_state, by_place[1]) + bias
        i, f, candidate, o = (z[..., number * units : (number + 1) * units] for number in range(4))
        c = gate(xp, f) * c + gate(xp, i) * inner(xp, candidate)
        h = xp.reshape(gate(xp, o) * inner(xp, c), (-1, floats))
        return h, xp.concatenate([h, xp.reshape(c, (-1, floats))], axis=1)

    def whole(x: Any) -> Any:
        k, r, b = kernel.astype(np.float64), recurrent.astype(np.float64), bias.astype(np.float64)
        grids = x.reshape(*x.shape[:2], *(each.size for each in axes), channels)
        h, c = np.zeros((len(x), *shape)), np.zeros((len(x), *shape))
        out = np.empty((*x.shape[:2], floats))
        for t in range(x.shape[1]):
            both = _whole_convolved(grids[:, t], k, axes) + _whole_convolved(h, r, within) + b
            of_input, of_past, candidate, of_output = np.split(both, 4, axis=-1)
            c = c * gate(np, of_past) + inner(np, candidate) * gate(np, of_input)
            h = inner(np, c) * gate(np, of_output)
            out[:, t] = h.reshape(len(x), floats)
        return out

    def in_blocks(x: Any, state: Any, steps: Any) -> Any:
        rows, out = max(1, BLOCK_NUMBERS // floats), np.empty((len(x), floats), np.float32)
        for start in range(0, len(x), rows):
            block = slice(start, start + rows)
            out[block], state[block] = step(np, x[block], state[block], steps[block])
        return out

    kind = output_kind(layer)
    return Node(layer.name, layer.class_name, kind, floats, 2 * floats, step, whole, shape=shape, in_place=in_blocks)


def _axes(layer: Layer, rank: int) -> tuple[list[Axis], int]:
    """The dimensions of a step, and its channels."""
    if layer.shape is None or len(layer.shape) != rank + 1:
        wanted = "(T, W, C)" if rank == 1 else "(T, H, W, C)"
        raise layer.refused("what reaches it has other dimensions than it works on", f"give it a sequence of {wanted}")
    layer.check_channels_last()
    padding = str(layer.config.get("padding", "valid")).lower()
    if padding not in ("valid", "same"):
        raise layer.refused(f"padding is {shown(layer.config.get('padding'))}, neither valid nor same", WAY_OUT)
    sizes, strides, dilations = (_each(layer, key, rank) for key in ("kernel_size", "strides", "dilation_rate"))
    if max(strides) > 1 and max(dilations) > 1:
        raise layer.refused("it has both strides and dilation", WAY_OUT)
    of_axes = zip(layer.shape[:-1], sizes, strides, dilations, strict=True)
    return [_axis(layer, *each, same=padding == "same") for each in of_axes], layer.shape[-1]


def _axis(layer: Layer, size: int, kernel: int, stride: int, dilation: int, *, same: bool) -> Axis:
    reach = (kernel - 1) * dilation + 1
    if not same and reach > size:
        raise layer.refused(f"its window of {reach} is larger than the step's {size}", WAY_OUT)
    windows = -(-size // stride) if same else (size - reach) // stride + 1
    zeros = max((windows - 1) * stride + reach - size, 0) if same else 0
    return Axis(size, kernel, stride, dilation, zeros // 2, windows)


def _each(layer: Layer, key: str, rank: int) -> list[int]:
    """One whole number for each dimension; files also have one for all."""
    value = layer.config.get(key, 1)
    found = value if isinstance(value, list) else [value] * rank
    if len(found) != rank or not all(is_whole(each, 1 << 12) for each in found):
        raise layer.refused(f"{key} is {shown(value)}, not {rank} whole number(s) from 1 on", WAY_OUT)
    return found


def _looked_at(layer: Layer, axes: list[Axis]) -> list[Array]:
    """For each place of the kernel, in C order, the position that each window has there; one behind the last is 0."""
    if prod(each.kernel * each.windows for each in axes) > PRODUCTS_MAX:
        raise layer.refused("its windows are too many or too large", "use a smaller kernel or more strides")
    positions = prod(each.size for each in axes)
    found = []
    for place in np.ndindex(*(each.kernel for each in axes)):
        at, inside = np.zeros((), np.int64), np.ones((), np.bool_)
        for each, here in zip(axes, place, strict=True):
            along = np.arange(each.windows) * each.stride + here * each.dilation - each.before
            at = at[..., None] * each.size + along
            inside = inside[..., None] & (along >= 0) & (along < each.size)
        found.append(np.where(inside, at, positions).reshape(-1))
    return found


def _convolved(xp: Any, cells: Any, looked_at: list[Any], kernel: Any) -> Any:
    """Cells (B, positions, C), a kernel (places, C, out) → (B, windows, out)."""
    with_zero = xp.concatenate([cells, xp.zeros_like(cells[:, :1])], axis=1)
    total = None
    for positions, part in zip(looked_at, kernel, strict=True):
        product = xp.take(with_zero, positions, axis=1) @ part
        total = product if total is None else total + product
    return total


def _whole_convolved(x: Any, kernel: Any, axes: list[Axis]) -> Any:
    """(N, …, C) → (N, …, out), from a padded copy."""
    after = [
        max((each.windows - 1) * each.stride + (each.kernel - 1) * each.dilation + 1 - each.size - each.before, 0)
        for each in axes
    ]
    padded = np.pad(x, [(0, 0), *((each.before, end) for each, end in zip(axes, after, strict=True)), (0, 0)])
    total: Any = 0
    for place in np.ndindex(*(each.kernel for each in axes)):
        starts = [here * each.dilation for here, each in zip(place, axes, strict=True)]
        seen = tuple(
            slice(start, start + (each.windows - 1) * each.stride + 1, each.stride)
            for start, each in zip(starts, axes, strict=True)
        )
        total = total + padded[:, *seen] @ kernel[place]
    return total
