"""The TensorFlow engine: the same layer rules, compiled by XLA for shapes of fixed size, on the GPU where there is one.

A batch goes as few calls, each of many waves: a call is a loop over its waves that was compiled once, for one number of
rows; waves of fewer streams are padded to it. States cross to the device when they are first stepped, and back when
they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from worker.core.types import BoolArray, Float32Array, Int32Array, Int64Array
from worker.core.waves import waves
from worker.model.program import StepProgram
from worker.model.tensorflow_log import start_notes_left_out
from worker.model.tensorflow_namespace import TensorFlowNamespace

ROWS = (8, 64, 512, 1024, 2048, 4096, 8192)
"""Streams of a wave that a loop is compiled for, in about .3 s each. A call of few costs 400 µs, as much as 1,000."""
SAMPLES_A_CALL = 8192
"""Rows times waves of one call: more of either come in further calls."""
UNUSED = 0
"""The row of the device's states that padding reads and writes; slot s has row s + 1."""


class TensorFlowStepper:
    """Steps `worker.ports.Stepper`'s contract. Imports TensorFlow when it is made. One thread at a time.

    With `states_stay` it is `worker.core.slots.HoldsStates`, too: stepped states are not written to `states`, and what
    is in `states` is not looked at again, until they are fetched and forgotten.
    """

    def __init__(self, program: StepProgram) -> None:
        with start_notes_left_out():
            import tensorflow as tf

        self.features = program.features
        self.state_size = program.state_size
        self.outputs = program.outputs
        self.releases_lock = True
        self.states_stay = False
        self._tf = tf
        size = program.state_size
        self._states = tf.Variable(tf.zeros([1, size]), shape=tf.TensorShape([None, size]), trainable=False)
        self._held: BoolArray = np.zeros(0, np.bool_)
        self._calls = {rows: _call(tf, program, self._states, rows) for rows in ROWS}

    def hold_states(self) -> None:
        """Let states stay from now on, and compile for every number of rows, so that no batch waits for it."""
        self.states_stay = True
        for rows, call in self._calls.items():
            call(*self._padded(rows), 0)

    def step_batch(
        self, slots: Int64Array, features: Float32Array, states: Float32Array, steps: Int32Array
    ) -> Float32Array:
        """See worker.ports.Stepper."""
        logits = np.empty((len(slots), self.outputs), np.float32)
        if not len(slots):
            return logits
        distinct, cut = waves(slots)
        self._upload(distinct, states)
        sizes = np.array([len(wave) for wave in cut])
        order = np.concatenate(cut)
        wave_of = np.repeat(np.arange(len(cut)), sizes)
        row_of = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        for start in range(0, len(distinct), ROWS[-1]):
            inside = (row_of >= start) & (row_of < start + ROWS[-1])
            records, wave, row = order[inside], wave_of[inside], row_of[inside] - start
            for rows, first, last in _calls(np.minimum(sizes[sizes > start] - start, ROWS[-1])):
                places, x, at = self._padded(rows)
                mine = slice(*np.searchsorted(wave, [first, last]))
                these, k, i = records[mine], wave[mine] - first, row[mine]
                used = distinct[start : start + rows]
                places[: len(used)] = used + 1
                x[k, i], at[k, i] = features[these], steps[these]
                logits[these] = self._calls[rows](places, x, at, last - first).numpy()[k, i]
        if not self.states_stay:
            self.fetch(distinct, states)
            self.forget(distinct)
        return logits

    def fetch(self, slots: Int64Array, states: Float32Array) -> None:
        """See HoldsStates."""
        mine = self._known(slots)
        mine = mine[self._held[mine]]
        if len(mine):
            states[mine] = self._tf.gather(self._states, mine + 1).numpy()

    def forget(self, slots: Int64Array) -> None:
        """See HoldsStates."""
        self._held[self._known(slots)] = False

    def _known(self, slots: Int64Array) -> Int64Array:
        return slots[slots < len(self._held)]

    def _upload(self, slots: Int64Array, states: Float32Array) -> None:
        tf = self._tf
        if (most := int(slots.max()) + 1) > len(self._held):
            more = max(most, 2 * len(self._held)) - len(self._held)
            self._held = np.concatenate([self._held, np.zeros(more, np.bool_)])
            self._states.assign(tf.concat([self._states, tf.zeros([more, self.state_size])], axis=0))
        fresh = slots[~self._held[slots]]
        if len(fresh):
            self._states.scatter_update(tf.IndexedSlices(tf.constant(states[fresh]), tf.constant(fresh + 1)))
            self._held[fresh] = True

    def _padded(self, rows: int) -> tuple[Int64Array, Float32Array, Int32Array]:
        """Arguments of a call in which nothing is stepped yet."""
        shape = (SAMPLES_A_CALL // rows, rows)
        return np.full(rows, UNUSED), np.zeros((*shape, self.features), np.float32), np.zeros(shape, np.int32)


def _calls(sizes: Int64Array) -> Iterator[tuple[int, int, int]]:
    """Sizes of consecutive waves, falling → (rows, first wave, wave after the last) of each call."""
    padded = np.array(ROWS)[np.searchsorted(ROWS, sizes)]
    first = 0
    while first < len(sizes):
        rows = int(padded[first])
        alike = int(np.count_nonzero(padded[first:] == rows))
        last = first + min(alike, SAMPLES_A_CALL // rows)
        yield rows, first, last
        first = last


def _call(tf: Any, program: StepProgram, states: Any, rows: int) -> Any:
    """places (rows,), x (waves, rows, F), steps (waves, rows), how many of the waves → logits (waves, rows, K).

    Steps the states at these places; those whose step is 0 stay as they are.
    """
    namespace = TensorFlowNamespace(tf)
    wave_count = SAMPLES_A_CALL // rows

    @tf.function(jit_compile=True)
    def loop(state: Any, x: Any, steps: Any, count: Any) -> Any:
        def wave(k: Any, state: Any, answers: Any) -> Any:
            now = steps[k]
            own = tf.where((now == 1)[:, None], tf.zeros_like(state), state)
            logits, after = program.graph(namespace, x[k], own, now)
            after = tf.where((now > 0)[:, None], tf.concat(after, axis=1), state)
            return k + 1, after, answers.write(k, logits)

        answers = tf.TensorArray(tf.float32, size=wave_count, element_shape=[rows, program.outputs])
        _, state, answers = tf.while_loop(lambda k, *_: k < count, wave, (0, state, answers))
        return state, answers.stack()

    @tf.function(
        input_signature=[
            tf.TensorSpec([rows], tf.int64),
            tf.TensorSpec([wave_count, rows, program.features], tf.float32),
            tf.TensorSpec([wave_count, rows], tf.int32),
            tf.TensorSpec([], tf.int32),
        ]
    )
    def call(places: Any, x: Any, steps: Any, count: Any) -> Any:
        after, logits = loop(tf.gather(states, places), x, steps, count)
        states.scatter_update(tf.IndexedSlices(after, places))
        return logits

    return call
