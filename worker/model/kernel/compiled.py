"""The loop, compiled by numba: one sample after the other through the whole model, without the interpreter's lock.

A sample's numbers depend on its own stream only, so they are the same bits whatever else is in the batch. Inside of the
loop there are pointers instead of arrays: a slice of an array costs two atomic additions to a reference count, and an
index that may be negative keeps a loop from becoming vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from worker.model.kernel.operations import COLUMNS, Activation, Operation
from worker.model.kernel.pointers import add_product, after, pointer, row_pointer, times_power_of_two

# No reassociation inside of exp, and no assumption that numbers are finite: NaN must come out as NaN.
MATH = {"contract", "nsz"}

LSTM, GRU_AFTER, GRU_BEFORE = int(Operation.LSTM), int(Operation.GRU_RESET_AFTER), int(Operation.GRU_RESET_BEFORE)
SIMPLE_RNN, DENSE, RUNNING_SUM = int(Operation.SIMPLE_RNN), int(Operation.DENSE), int(Operation.RUNNING_SUM)
ACTIVATION, SCALE_AND_SHIFT = int(Operation.ACTIVATION), int(Operation.SCALE_AND_SHIFT)
STATE_SCORES = int(Operation.STATE_SCORES)
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


@njit(inline="always", fastmath=MATH, error_model="numpy")
def _exp(given: Any) -> Any:
    x = given if given < EXP_MAX else EXP_MAX
    x = x if x > EXP_MIN else EXP_MIN
    n = np.floor(x * LOG2_E + HALF)
    r = x - n * LN2_HIGH - n * LN2_LOW
    y = ((((P0 * r + P1) * r + P2) * r + P3) * r + P4) * r + P5
    y = times_power_of_two(y * r * r + r + ONE, n)
    return y if given == given else given


@njit(inline="always", fastmath=MATH, error_model="numpy")
def _sigmoid(x: Any) -> Any:
    return ONE / (ONE + _exp(-x))


@njit(inline="always", fastmath=MATH, error_model="numpy")
def _tanh(x: Any) -> Any:
    return TWO / (ONE + _exp(-TWO * x)) - ONE


@njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _activate(v: Any, count: int, code: int, parameter: Any) -> None:
    """In place."""
    if code == TANH:
        for k in range(count):
            v[k] = _tanh(v[k])
    elif code == SIGMOID:
        for k in range(count):
            v[k] = _sigmoid(v[k])
    elif code == RELU:
        for k in range(count):
            v[k] = ZERO if v[k] < ZERO else v[k]
    elif code == LEAKY:
        for k in range(count):
            v[k] = parameter * v[k] if v[k] < ZERO else v[k]
    elif code == ELU:
        for k in range(count):
            v[k] = parameter * (_exp(v[k]) - ONE) if v[k] < ZERO else v[k]
    elif code == HARD_2:
        for k in range(count):
            y = FIFTH * v[k] + HALF
            v[k] = ZERO if y < ZERO else (ONE if y > ONE else y)
    elif code == HARD_3:
        for k in range(count):
            y = SIXTH * v[k] + HALF
            v[k] = ZERO if y < ZERO else (ONE if y > ONE else y)


@njit(inline="always", error_model="numpy")
def _copy(to: Any, source: Any, count: int) -> None:
    for k in range(count):
        to[k] = source[k]


@njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _lstm(x: Any, z: Any, h: Any, weights: Any, op: Any) -> None:
    """Gates lie as i, f, o, candidate, so that the three sigmoids are one run; state h, c."""
    inputs, units = op[1], op[2]
    wide = 4 * units
    c = after(h, units)
    _copy(z, after(weights, (inputs + units) * wide), wide)
    add_product(z, x, inputs, weights, wide)
    add_product(z, h, units, after(weights, inputs * wide), wide)
    f, o, candidate = after(z, units), after(z, 2 * units), after(z, 3 * units)
    _activate(z, 3 * units, op[6], ZERO)
    _activate(candidate, units, op[5], ZERO)
    for k in range(units):
        c[k] = f[k] * c[k] + z[k] * candidate[k]
        x[k] = c[k]
    _activate(x, units, op[5], ZERO)
    for k in range(units):
        x[k] *= o[k]
        h[k] = x[k]


@njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _gru(x: Any, a: Any, h: Any, weights: Any, op: Any) -> None:
    """Gates z, r, h; weights kernel, recurrent of z and r and of h, input bias, recurrent bias (zeros for none)."""
    inputs, units = op[1], op[2]
    wide = 3 * units
    recurrent = after(weights, inputs * wide)
    m = after(a, wide)
    _copy(a, after(weights, (inputs + units) * wide), 2 * wide)
    add_product(a, x, inputs, weights, wide)
    add_product(m, h, units, recurrent, 2 * units)
    for k in range(2 * units):
        a[k] += m[k]
    _activate(a, 2 * units, op[6], ZERO)
    reset, candidate, late = after(a, units), after(a, 2 * units), after(m, 2 * units)
    of_candidate = after(recurrent, 2 * units * units)
    if op[0] == GRU_AFTER:
        add_product(late, h, units, of_candidate, units)
        for k in range(units):
            candidate[k] += reset[k] * late[k]
    else:
        for k in range(units):
            x[k] = reset[k] * h[k]
        add_product(candidate, x, units, of_candidate, units)
    _activate(candidate, units, op[5], ZERO)
    for k in range(units):
        h[k] = a[k] * h[k] + (ONE - a[k]) * candidate[k]
        x[k] = h[k]


@njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _simple_rnn(x: Any, z: Any, h: Any, weights: Any, op: Any) -> None:
    inputs, units = op[1], op[2]
    _copy(z, after(weights, (inputs + units) * units), units)
    add_product(z, x, inputs, weights, units)
    add_product(z, h, units, after(weights, inputs * units), units)
    _activate(z, units, op[5], ZERO)
    _copy(h, z, units)
    _copy(x, z, units)


@njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _dense(x: Any, z: Any, total: Any, weights: Any, op: Any, step: int, parameter: Any) -> None:
    """A product; as a running sum of the slice of this step, the last slice from then on."""
    inputs, outputs = op[1], op[2]
    size = inputs * outputs
    if op[0] == RUNNING_SUM:
        add_product(total, x, inputs, after(weights, (min(step, op[7]) - 1) * size), outputs)
        bias = after(weights, op[7] * size)
        for k in range(outputs):
            z[k] = total[k] + bias[k]
    else:
        _copy(z, after(weights, size), outputs)
        add_product(z, x, inputs, weights, outputs)
    _activate(z, outputs, op[5], parameter)
    _copy(x, z, outputs)


@njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _state_scores(x: Any, s: Any, weights: Any, op: Any, step: int) -> None:
    """Behind the logits in x the state times the slice of this step; zeros after the last slice."""
    size, outputs = op[1], op[2]
    scores = after(x, outputs)
    for k in range(outputs):
        scores[k] = ZERO
    if step <= op[7]:
        add_product(scores, s, size, after(weights, (step - 1) * size * outputs), outputs)


@njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _step_one(operations: Any, count: int, parameters: Any, weights: Any, x: Any, z: Any, s: Any, step: int) -> None:
    """The sample in x becomes its logits and scores; its state s is stepped. `z`: room for six vectors."""
    for o in range(count):
        op = after(operations, o * COLUMNS)
        code, mine, w, parameter = op[0], after(s, op[3]), after(weights, op[4]), parameters[o]
        if code == LSTM:
            _lstm(x, z, mine, w, op)
        elif code in (GRU_AFTER, GRU_BEFORE):
            _gru(x, z, mine, w, op)
        elif code == SIMPLE_RNN:
            _simple_rnn(x, z, mine, w, op)
        elif code in (DENSE, RUNNING_SUM):
            _dense(x, z, mine, w, op, step, parameter)
        elif code == ACTIVATION:
            _activate(x, op[1], op[5], parameter)
        elif code == SCALE_AND_SHIFT:
            offset = after(w, op[1])
            for k in range(op[1]):
                x[k] = x[k] * w[k] + offset[k]
        elif code == STATE_SCORES:
            _state_scores(x, mine, w, op, step)


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
    answers: Any,
) -> None:
    """The stepper's contract on tables: states (slots, S) in place, answers (N, columns) filled, in record order.

    A row of states is contiguous; all other arrays are in C order.
    """
    scratch = np.empty(7 * width, np.float32)
    x, z = pointer(scratch), after(pointer(scratch), width)
    size, inputs, columns = states.shape[1], features.shape[1], answers.shape[1]
    table, numbers, w = pointer(operations), pointer(parameters), pointer(weights)
    for i in range(len(slots)):
        s = row_pointer(states, slots[i])
        if steps[i] == 1:
            for k in range(size):
                s[k] = ZERO
        _copy(x, row_pointer(features, i), inputs)
        _step_one(table, len(operations), numbers, w, x, z, s, steps[i])
        _copy(row_pointer(answers, i), x, columns)
