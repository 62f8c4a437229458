"""What the kernel can express: a model as a table of operations and one array of weights. No compiler is needed here.

Each operation reads the current vector, may read and write its part of the state, and replaces the vector; the last
may be one that puts the scores of the whole state behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from worker.core.types import Float32Array, Int64Array
from worker.model.files.weights import Array


class Operation(IntEnum):
    """Codes that the compiled loop knows."""

    LSTM = 1
    GRU_RESET_AFTER = 2
    GRU_RESET_BEFORE = 3
    SIMPLE_RNN = 4
    DENSE = 5
    RUNNING_SUM = 6
    ACTIVATION = 7
    SCALE_AND_SHIFT = 8
    STATE_SCORES = 9


BY_STEP = (Operation.RUNNING_SUM, Operation.STATE_SCORES)
"""Their first weights are one matrix for each step."""


class Activation(IntEnum):
    """Codes of elementwise functions; those with a parameter take `KernelOp.parameter`."""

    LINEAR = 0
    TANH = 1
    SIGMOID = 2
    RELU = 3
    LEAKY_RELU = 4
    ELU = 5
    HARD_SIGMOID_KERAS_2 = 6
    HARD_SIGMOID_KERAS_3 = 7


_BY_NAME = {
    "linear": Activation.LINEAR,
    "tanh": Activation.TANH,
    "sigmoid": Activation.SIGMOID,
    "relu": Activation.RELU,
}


def activation_code(name: object, keras_major: int) -> Activation | None:
    """None for a function that the kernel does not have."""
    if name == "hard_sigmoid":
        return Activation.HARD_SIGMOID_KERAS_2 if keras_major < 3 else Activation.HARD_SIGMOID_KERAS_3
    return _BY_NAME.get(name) if isinstance(name, str) else None


@dataclass(frozen=True, slots=True)
class KernelOp:
    """One operation; `weights` are laid out one after the other, vectors as they are, matrices in blocks of columns.

    `activation` is the output's (of a recurrent layer: the candidate's), `gate` a recurrent layer's inner one.
    """

    operation: Operation
    inputs: int
    outputs: int
    weights: tuple[Array, ...] = ()
    activation: Activation = Activation.LINEAR
    gate: Activation = Activation.LINEAR
    parameter: float = 0.0


LANES = 8
"""Floats of one vector, of 256 bits; a processor with shorter ones takes two."""
SUMS = 8
"""Vectors of sums that are carried along together: as many as hide the latency of a multiplication."""
BLOCKS = ((LANES, SUMS), (LANES, 1), (1, 1))
"""In which a product takes its columns, lanes and sums: as many of the first kind as there are, then of the next."""

COLUMNS = 8
"""Of the operation table: code, inputs, outputs, state offset, weight offset, activation, gate, timesteps."""


@dataclass(frozen=True, slots=True)
class KernelTables:
    """operations (n, COLUMNS) int64, parameters (n,) float32, weights flat float32; `width`: the longest vector."""

    operations: Int64Array
    parameters: Float32Array
    weights: Float32Array
    width: int


def in_blocks(weight: Array) -> Float32Array:
    """A vector as it is; of a matrix, or of each of several, its blocks of columns in turn, each row by row.

    So a product reads its weights from the first to the last, whatever the width.
    """
    weight = np.ascontiguousarray(weight, np.float32)
    if weight.ndim == 1:
        return weight
    parts, begin = [], 0
    for lanes, sums in BLOCKS:
        end = begin + (weight.shape[-1] - begin) // (lanes * sums) * lanes * sums
        for first in range(begin, end, lanes * sums):
            block = weight[..., first : first + lanes * sums]
            parts.append(block.reshape(*weight.shape[:-2], -1))
        begin = end
    return np.concatenate(parts, axis=-1).ravel()


def tables(operations: list[tuple[KernelOp, int]], features: int) -> KernelTables:
    """Lay out operations, each with its first column in the state row."""
    rows, flat, parameters, at, width = [], [], [], 0, features
    for op, state_offset in operations:
        timesteps = op.weights[0].shape[0] if op.operation in BY_STEP else 0
        rows.append([op.operation, op.inputs, op.outputs, state_offset, at, op.activation, op.gate, timesteps])
        parameters.append(op.parameter)
        for weight in op.weights:
            flat.append(in_blocks(weight))
            at += weight.size
        # Scores are read from the state, and written behind as many logits.
        lengths = (2 * op.outputs,) if op.operation is Operation.STATE_SCORES else (op.inputs, op.outputs)
        width = max(width, *lengths)
    return KernelTables(
        np.array(rows, np.int64).reshape(-1, COLUMNS),
        np.array(parameters, np.float32),
        np.concatenate([np.zeros(0, np.float32), *flat]),
        width,
    )
