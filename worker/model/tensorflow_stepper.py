"""The TensorFlow engine: a batch is one call of one traced function, on the GPU where there is one.

The same operations as the kernel's, in batches of streams. States cross to the device and back once a batch, not once
a wave; shapes are left open in the trace, so no batch is traced or padded anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from worker.core.types import Float32Array, Int32Array, Int64Array
from worker.core.waves import waves
from worker.model.kernel.operations import Activation, KernelOp, Operation
from worker.model.program import StepProgram

Step = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(x (B, in), state (B, s), steps (B,)) → (y (B, out), new state (B, s))."""


class TensorFlowStepper:
    """Steps `worker.ports.Stepper`'s contract. Imports TensorFlow when it is made. One thread at a time."""

    def __init__(self, program: StepProgram, operations: list[tuple[KernelOp, int]]) -> None:
        """`operations`: each with its first column in the state row."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf

        self.features = program.features
        self.state_size = program.state_size
        self.outputs = program.outputs
        self._tf = tf
        steps = [(_step(tf, op), column, _state_floats(op)) for op, column in operations]
        self._batch = tf.function(
            lambda *batch: _batch(tf, steps, program.outputs, *batch),
            input_signature=[
                tf.TensorSpec([None, program.features], tf.float32),
                tf.TensorSpec([None, program.state_size], tf.float32),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([None], tf.int32),
            ],
        )

    def step_batch(
        self, slots: Int64Array, features: Float32Array, states: Float32Array, steps: Int32Array
    ) -> Float32Array:
        """See worker.ports.Stepper."""
        logits = np.empty((len(slots), self.outputs), np.float32)
        if not len(slots):
            return logits
        distinct, cut = waves(slots)
        order = np.concatenate(cut)
        sizes = np.array([len(wave) for wave in cut], np.int32)
        constant = self._tf.constant
        answers, after = self._batch(
            constant(features[order]), constant(states[distinct]), constant(steps[order]), constant(sizes)
        )
        logits[order] = answers.numpy()
        states[distinct] = after.numpy()
        return logits


def _batch(tf: Any, steps: list[tuple[Step, int, int]], outputs: int, x: Any, state: Any, at: Any, sizes: Any) -> Any:
    """Wave after wave; wave k is the next `sizes[k]` samples, of the first `sizes[k]` rows of `state`."""
    waves_count = tf.shape(sizes)[0]
    ends = tf.cumsum(sizes)

    def wave(k: Any, state: Any, answers: Any) -> Any:
        size, end = sizes[k], ends[k]
        now = at[end - size : end]
        mine = tf.where((now == 1)[:, None], tf.zeros_like(state[:size]), state[:size])
        y, parts, column = x[end - size : end], [], 0
        for step, first, floats in steps:
            if floats:
                parts.append(mine[:, column:first])
                y, new = step(y, mine[:, first : first + floats], now)
                parts.append(new)
                column = first + floats
            else:
                y, _ = step(y, None, now)
        after = tf.concat([*parts, mine[:, column:]], axis=1)
        return k + 1, tf.concat([after, state[size:]], axis=0), answers.write(k, y)

    answers = tf.TensorArray(tf.float32, size=waves_count, infer_shape=False, element_shape=[None, outputs])
    _, state, answers = tf.while_loop(
        lambda k, *_: k < waves_count,
        wave,
        (0, state, answers),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, state.shape[1]]), None),
        # Waves depend on each other.
        parallel_iterations=1,
    )
    return answers.concat(), state


def _state_floats(op: KernelOp) -> int:
    if op.operation is Operation.LSTM:
        return 2 * op.outputs
    recurrent = (Operation.GRU_RESET_AFTER, Operation.GRU_RESET_BEFORE, Operation.SIMPLE_RNN, Operation.RUNNING_SUM)
    return op.outputs if op.operation in recurrent else 0


def _step(tf: Any, op: KernelOp) -> Step:
    weights = [tf.constant(np.asarray(weight, np.float32)) for weight in op.weights]
    activate, gate = _function(tf, op.activation, op.parameter), _function(tf, op.gate, 0.0)
    make = {
        Operation.LSTM: _lstm,
        Operation.GRU_RESET_AFTER: _gru_after,
        Operation.GRU_RESET_BEFORE: _gru_before,
        Operation.SIMPLE_RNN: _simple_rnn,
        Operation.DENSE: _dense,
        Operation.RUNNING_SUM: _running_sum,
    }.get(op.operation)
    if make is not None:
        return make(tf, weights, op.outputs, activate, gate)
    if op.operation is Operation.RESCALE:
        return lambda x, state, _: (x * op.parameter + op.offset, state)
    return lambda x, state, _: (activate(x), state)


def _function(tf: Any, code: Activation, parameter: float) -> Any:
    return {
        Activation.LINEAR: lambda x: x,
        Activation.TANH: tf.tanh,
        Activation.SIGMOID: tf.sigmoid,
        Activation.RELU: tf.nn.relu,
        Activation.LEAKY_RELU: lambda x: tf.where(x < 0, parameter * x, x),
        Activation.ELU: lambda x: tf.where(x < 0, parameter * tf.math.expm1(tf.minimum(x, 0.0)), x),
        Activation.HARD_SIGMOID_KERAS_2: lambda x: tf.clip_by_value(0.2 * x + 0.5, 0.0, 1.0),
        Activation.HARD_SIGMOID_KERAS_3: lambda x: tf.clip_by_value(x / 6 + 0.5, 0.0, 1.0),
    }[code]


def _lstm(tf: Any, weights: list[Any], units: int, activate: Any, gate: Any) -> Step:
    """Gates lie as i, f, o, candidate."""
    kernel, recurrent, bias = weights

    def step(x: Any, state: Any, steps: Any) -> tuple[Any, Any]:
        del steps
        h, c = state[:, :units], state[:, units:]
        z = x @ kernel + h @ recurrent + bias
        i, f, o = tf.split(gate(z[:, : 3 * units]), 3, axis=1)
        c = f * c + i * activate(z[:, 3 * units :])
        h = o * activate(c)
        return h, tf.concat([h, c], axis=1)

    return step


def _gru_after(tf: Any, weights: list[Any], units: int, activate: Any, gate: Any) -> Step:
    kernel, recurrent, bias, recurrent_bias = weights

    def step(x: Any, h: Any, steps: Any) -> tuple[Any, Any]:
        del steps
        a, m = x @ kernel + bias, h @ recurrent + recurrent_bias
        z, r = tf.split(gate(a[:, : 2 * units] + m[:, : 2 * units]), 2, axis=1)
        h = z * h + (1 - z) * activate(a[:, 2 * units :] + r * m[:, 2 * units :])
        return h, h

    return step


def _gru_before(tf: Any, weights: list[Any], units: int, activate: Any, gate: Any) -> Step:
    kernel, recurrent, bias, recurrent_bias = weights

    def step(x: Any, h: Any, steps: Any) -> tuple[Any, Any]:
        del steps
        a = x @ kernel + bias + recurrent_bias
        z, r = tf.split(gate(a[:, : 2 * units] + h @ recurrent[:, : 2 * units]), 2, axis=1)
        h = z * h + (1 - z) * activate(a[:, 2 * units :] + (r * h) @ recurrent[:, 2 * units :])
        return h, h

    return step


def _simple_rnn(tf: Any, weights: list[Any], units: int, activate: Any, gate: Any) -> Step:
    del tf, units, gate
    kernel, recurrent, bias = weights

    def step(x: Any, h: Any, steps: Any) -> tuple[Any, Any]:
        del steps
        h = activate(x @ kernel + h @ recurrent + bias)
        return h, h

    return step


def _dense(tf: Any, weights: list[Any], units: int, activate: Any, gate: Any) -> Step:
    del tf, units, gate
    kernel, bias = weights
    return lambda x, state, _: (activate(x @ kernel + bias), state)


def _running_sum(tf: Any, weights: list[Any], units: int, activate: Any, gate: Any) -> Step:
    del units, gate
    slices, bias = weights
    last = slices.shape[0]

    def step(x: Any, total: Any, steps: Any) -> tuple[Any, Any]:
        total = total + tf.einsum("bf,bfk->bk", x, tf.gather(slices, tf.minimum(steps, last) - 1))
        return activate(total + bias), total

    return step
