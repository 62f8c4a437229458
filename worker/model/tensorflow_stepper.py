"""The TensorFlow engine: a batch is one call of one traced function, on the GPU where there is one.

It traces the same layer rules that NumPy runs. States cross to the device and back once a batch, not once a wave;
shapes are left open in the trace, so no batch is traced or padded anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.core.types import Float32Array, Int32Array, Int64Array
from worker.core.waves import waves
from worker.model.program import StepProgram
from worker.model.tensorflow_log import start_notes_left_out


class TensorFlowStepper:
    """Steps `worker.ports.Stepper`'s contract. Imports TensorFlow when it is made. One thread at a time."""

    def __init__(self, program: StepProgram) -> None:
        with start_notes_left_out():
            import tensorflow as tf

        self.features = program.features
        self.state_size = program.state_size
        self.outputs = program.outputs
        self.releases_lock = True
        self._tf = tf
        self._batch = tf.function(
            lambda *batch: _batch(tf, program, *batch),
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


class _Namespace:
    """The functions that the layer rules use of NumPy, by their NumPy names and arguments, on tensors."""

    def __init__(self, tf: Any) -> None:
        self._tf = tf
        self.tanh, self.exp, self.abs, self.sqrt = tf.tanh, tf.exp, tf.abs, tf.sqrt
        self.expm1, self.log1p = tf.math.expm1, tf.math.log1p
        self.floor, self.zeros_like = tf.floor, tf.zeros_like
        self.add, self.subtract, self.multiply = tf.add, tf.subtract, tf.multiply
        self.maximum, self.minimum, self.where = tf.maximum, tf.minimum, tf.where
        self.logical_and, self.logical_or = tf.logical_and, tf.logical_or
        self.concatenate, self.reshape, self.einsum = tf.concat, tf.reshape, tf.einsum
        self.sum, self.mean, self.max, self.any = tf.reduce_sum, tf.reduce_mean, tf.reduce_max, tf.reduce_any

    def asarray(self, value: Any, dtype: Any) -> Any:
        return self._tf.cast(value, dtype)

    def take(self, values: Any, indices: Any, axis: int, mode: str = "raise") -> Any:
        if mode == "clip":
            indices = self._tf.clip_by_value(indices, 0, values.shape[axis] - 1)
        return self._tf.gather(values, indices, axis=axis)


def _batch(tf: Any, program: StepProgram, x: Any, state: Any, at: Any, sizes: Any) -> Any:
    """Wave after wave; wave k is the next `sizes[k]` samples, of the first `sizes[k]` rows of `state`."""
    namespace = _Namespace(tf)
    waves_count = tf.shape(sizes)[0]
    ends = tf.cumsum(sizes)

    def wave(k: Any, state: Any, answers: Any) -> Any:
        size, end = sizes[k], ends[k]
        now = at[end - size : end]
        mine = tf.where((now == 1)[:, None], tf.zeros_like(state[:size]), state[:size])
        logits, after = program.graph(namespace, x[end - size : end], mine, now)
        return k + 1, tf.concat([tf.concat(after, axis=1), state[size:]], axis=0), answers.write(k, logits)

    answers = tf.TensorArray(tf.float32, size=waves_count, infer_shape=False, element_shape=[None, program.outputs])
    _, state, answers = tf.while_loop(
        lambda k, *_: k < waves_count,
        wave,
        (0, state, answers),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, program.state_size]), None),
        # Waves depend on each other.
        parallel_iterations=1,
    )
    return answers.concat(), state
