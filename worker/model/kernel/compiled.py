"""The loop, compiled by numba: one sample after the other through the whole model, without the interpreter's lock.

A sample's numbers depend on its own stream only, so they are the same bits whatever else is in the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from worker.model.kernel.operations import Activation, Operation

# No reassociation inside of exp, and no assumption that numbers are finite: NaN must come out as NaN.
MATH = {"contract", "nsz"}
# Sums of products may be reordered: that is what makes them vectors.
SUMS = {"contract", "nsz", "reassoc"}

LSTM, GRU_AFTER, GRU_BEFORE = int(Operation.LSTM), int(Operation.GRU_RESET_AFTER), int(Operation.GRU_RESET_BEFORE)
SIMPLE_RNN, DENSE, RUNNING_SUM = int(Operation.SIMPLE_RNN), int(Operation.DENSE), int(Operation.RUNNING_SUM)
ACTIVATION, RESCALE = int(Operation.ACTIVATION), int(Operation.RESCALE)
TANH, SIGMOID, RELU = int(Activation.TANH), int(Activation.SIGMOID), int(Activation.RELU)
LEAKY, ELU = int(Activation.LEAKY_RELU), int(Activation.ELU)
HARD_2, HARD_3 = int(Activation.HARD_SIGMOID_KERAS_2), int(Activation.HARD_SIGMOID_KERAS_3)

f32 = np.float32
ZERO, HALF, ONE, TWO = f32(0), f32(0.5), f32(1), f32(2)
# exp(x) = 2^n · exp(r), |r| <= ln(2)/2: constants of the Cephes library's expf, error below 2 units in the last place.
EXP_MIN, EXP_MAX = f32(-87.0), f32(88.0)
LOG2_E, LN2_HIGH, LN2_LOW = f32(1.44269504), f32(0.693359375), f32(-2.12194440e-4)
P0, P1, P2 = f32(1.9875691500e-4), f32(1.3981999507e-3), f32(8.3334519073e-3)
P3, P4, P5 = f32(4.1665795894e-2), f32(1.6666665459e-1), f32(5.0000001201e-1)
SIXTH, FIFTH = f32(1 / 6), f32(0.2)


@intrinsic
def _times_power_of_two(context: Any, value: Any, power: Any) -> Any:
    """value · 2^power by adding to the exponent's bits; Python's integers would widen to 64 bits and not vectorise."""
    del context, value, power

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value, power = arguments
        int32 = ir.IntType(32)
        shift = builder.shl(builder.fptosi(power, int32), ir.Constant(int32, 23))
        return builder.bitcast(builder.add(builder.bitcast(value, int32), shift), ir.FloatType())

    return types.float32(types.float32, types.float32), generate


@njit(inline="always", fastmath=MATH, error_model="numpy")
def _exp(given: Any) -> Any:
    x = given if given < EXP_MAX else EXP_MAX
    x = x if x > EXP_MIN else EXP_MIN
    n = np.floor(x * LOG2_E + HALF)
    r = x - n * LN2_HIGH - n * LN2_LOW
    y = ((((P0 * r + P1) * r + P2) * r + P3) * r + P4) * r + P5
    y = _times_power_of_two(y * r * r + r + ONE, n)  # type: ignore[call-arg]  # the compiler passes the context
    return y if given == given else given


@njit(inline="always", fastmath=MATH, error_model="numpy")
def _sigmoid(x: Any) -> Any:
    return ONE / (ONE + _exp(-x))


@njit(inline="always", fastmath=MATH, error_model="numpy")
def _tanh(x: Any) -> Any:
    return TWO / (ONE + _exp(-TWO * x)) - ONE


@njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _activate(v: Any, code: int, parameter: Any) -> None:
    """In place."""
    if code == TANH:
        for k in range(len(v)):
            v[k] = _tanh(v[k])
    elif code == SIGMOID:
        for k in range(len(v)):
            v[k] = _sigmoid(v[k])
    elif code == RELU:
        for k in range(len(v)):
            v[k] = ZERO if v[k] < ZERO else v[k]
    elif code == LEAKY:
        for k in range(len(v)):
            v[k] = parameter * v[k] if v[k] < ZERO else v[k]
    elif code == ELU:
        for k in range(len(v)):
            v[k] = parameter * (_exp(v[k]) - ONE) if v[k] < ZERO else v[k]
    elif code == HARD_2:
        for k in range(len(v)):
            y = FIFTH * v[k] + HALF
            v[k] = ZERO if y < ZERO else (ONE if y > ONE else y)
    elif code == HARD_3:
        for k in range(len(v)):
            y = SIXTH * v[k] + HALF
            v[k] = ZERO if y < ZERO else (ONE if y > ONE else y)


# Slices, because an index from `range` over one is known not to be negative, and only then are loops vectors.


@njit(nogil=True, fastmath=SUMS, error_model="numpy", cache=True)
def _add_product(z: Any, x: Any, weights: Any, stride: int) -> None:
    """z += x · W; row j of W begins at j · stride. Four rows at a time, so that z is loaded and stored less often."""
    width, fours = len(z), len(x) // 4 * 4
    for j in range(0, fours, 4):
        a, b, c, d = x[j], x[j + 1], x[j + 2], x[j + 3]
        row_a = weights[j * stride : j * stride + width]
        row_b = weights[(j + 1) * stride : (j + 1) * stride + width]
        row_c = weights[(j + 2) * stride : (j + 2) * stride + width]
        row_d = weights[(j + 3) * stride : (j + 3) * stride + width]
        for k in range(width):
            z[k] += (a * row_a[k] + b * row_b[k]) + (c * row_c[k] + d * row_d[k])
    for j in range(fours, len(x)):
        factor = x[j]
        row = weights[j * stride : j * stride + len(z)]
        for k in range(len(z)):
            z[k] += factor * row[k]


@njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _lstm(x: Any, scratch: Any, s: Any, weights: Any, op: Any) -> None:
    """Gates lie as i, f, o, candidate, so that the three sigmoids are one run; state h, c."""
    inputs, units = op[1], op[2]
    wide = 4 * units
    h, c = s[:units], s[units : 2 * units]
    z, y = scratch[:wide], x[:units]
    z[:] = weights[(inputs + units) * wide : (inputs + units + 1) * wide]
    _add_product(z, x[:inputs], weights, wide)
    _add_product(z, h, weights[inputs * wide :], wide)
    _activate(z[: 3 * units], op[6], ZERO)
    _activate(z[3 * units :], op[5], ZERO)
    i, f, o, candidate = z[:units], z[units : 2 * units], z[2 * units : 3 * units], z[3 * units :]
    for k in range(units):
        c[k] = f[k] * c[k] + i[k] * candidate[k]
        y[k] = c[k]
    _activate(y, op[5], ZERO)
    for k in range(units):
        y[k] *= o[k]
        h[k] = y[k]


@njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _gru(x: Any, scratch: Any, more: Any, h: Any, weights: Any, op: Any) -> None:
    """Gates z, r, h; weights kernel, recurrent, input bias, recurrent bias (zeros where there is none)."""
    inputs, units = op[1], op[2]
    wide = 3 * units
    recurrent = weights[inputs * wide : (inputs + units) * wide]
    bias = weights[(inputs + units) * wide : (inputs + units + 2) * wide]
    a, m, y = scratch[:wide], more[:wide], x[:units]
    a[:] = bias[:wide]
    m[:] = bias[wide:]
    _add_product(a, x[:inputs], weights, wide)
    _add_product(m if op[0] == GRU_AFTER else m[: 2 * units], h, recurrent, wide)
    gates, candidate = a[: 2 * units], a[2 * units :]
    gates += m[: 2 * units]
    _activate(gates, op[6], ZERO)
    update, reset, late = gates[:units], gates[units:], m[2 * units :]
    if op[0] == GRU_AFTER:
        for k in range(units):
            candidate[k] += reset[k] * late[k]
    else:
        for k in range(units):
            y[k] = reset[k] * h[k]
        _add_product(candidate, y, recurrent[2 * units :], wide)
    _activate(candidate, op[5], ZERO)
    for k in range(units):
        h[k] = update[k] * h[k] + (ONE - update[k]) * candidate[k]
        y[k] = h[k]


@njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _simple_rnn(x: Any, scratch: Any, h: Any, weights: Any, op: Any) -> None:
    inputs, units = op[1], op[2]
    z = scratch[:units]
    z[:] = weights[(inputs + units) * units : (inputs + units + 1) * units]
    _add_product(z, x[:inputs], weights, units)
    _add_product(z, h, weights[inputs * units :], units)
    _activate(z, op[5], ZERO)
    h[:] = z
    x[:units] = z


@njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _dense(x: Any, scratch: Any, total: Any, weights: Any, op: Any, step: int, parameter: Any) -> None:
    """A product; as a running sum of the slice of this step, the last slice from then on."""
    inputs, outputs = op[1], op[2]
    size = inputs * outputs
    z = scratch[:outputs]
    if op[0] == RUNNING_SUM:
        t = min(step, op[7]) - 1
        _add_product(total, x[:inputs], weights[t * size : (t + 1) * size], outputs)
        bias = weights[op[7] * size : op[7] * size + outputs]
        for k in range(outputs):
            z[k] = total[k] + bias[k]
    else:
        z[:] = weights[size : size + outputs]
        _add_product(z, x[:inputs], weights, outputs)
    _activate(z, op[5], parameter)
    x[:outputs] = z


@njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def step_samples(
    operations: Any,
    parameters: Any,
    weights: Any,
    width: int,
    slots: Any,
    features: Any,
    states: Any,
    steps: Any,
    logits: Any,
) -> None:
    """The stepper's contract on tables: states (slots, S) in place, logits (N, K) filled, in record order."""
    size = states.shape[1]
    s, x = np.empty(size, np.float32), np.empty(width, np.float32)
    z, m = np.empty(4 * width, np.float32), np.empty(4 * width, np.float32)
    for i in range(len(slots)):
        state = states[slots[i]]
        if steps[i] == 1:
            s[:] = ZERO
        else:
            s[:] = state
        x[: features.shape[1]] = features[i]
        for o in range(len(operations)):
            op = operations[o]
            code, mine, w = op[0], s[op[3] :], weights[op[4] :]
            if code == LSTM:
                _lstm(x, z, mine, w, op)
            elif code in (GRU_AFTER, GRU_BEFORE):
                _gru(x, z, m, mine[: op[2]], w, op)
            elif code == SIMPLE_RNN:
                _simple_rnn(x, z, mine[: op[2]], w, op)
            elif code in (DENSE, RUNNING_SUM):
                _dense(x, z, mine[: op[2]], w, op, steps[i], parameters[o, 0])
            elif code == ACTIVATION:
                _activate(x[: op[1]], op[5], parameters[o, 0])
            elif code == RESCALE:
                for k in range(op[1]):
                    x[k] = x[k] * parameters[o, 0] + parameters[o, 1]
        state[:] = s
        logits[i] = x[: logits.shape[1]]
