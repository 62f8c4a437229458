"""The functions that the layer rules use of NumPy, for TensorFlow's tensors."""

from __future__ import annotations

from typing import Any


class TensorFlowNamespace:
    """By their NumPy names and arguments."""

    def __init__(self, tf: Any) -> None:
        self._tf = tf
        self.tanh, self.exp, self.abs, self.sqrt = tf.tanh, tf.exp, tf.abs, tf.sqrt
        self.expm1, self.log1p, self.log = tf.math.expm1, tf.math.log1p, tf.math.log
        self.sin, self.cos, self.sign, self.power = tf.sin, tf.cos, tf.sign, tf.pow
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
