"""The TensorFlow engine: the same layer rules, compiled by XLA for shapes of fixed size, on the GPU where there is one.

A batch is one call of one traced function: a loop over its waves, compiled once for a few numbers of rows, and each
wave padded to the next of them. States cross to the device when they are first stepped, and back when they are asked
for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.core.types import BoolArray, Float32Array, Int32Array, Int64Array
from worker.core.waves import waves
from worker.model.program import StepProgram
from worker.model.tensorflow_import import importing_tensorflow
from worker.model.tensorflow_namespace import TensorFlowNamespace

ROWS = (8, 64, 512, 1024, 2048, 4096, 8192)
"""Streams of a wave that the loop is compiled for, in about .3 s each. Wide models take fewer of them."""
STATE_FLOATS_MAX = 1 << 24
"""Of the widest wave's states, 64 MiB."""
SAMPLE_FLOATS_MAX = 1 << 20
"""Of the widest wave's features and answers, 4 MiB: each call moves half as much again, for a lone sample too."""
UNUSED = 0
"""The row of the device's states that padding reads and writes; slot s has row s + 1."""


class TensorFlowStepper:
    """Steps `worker.ports.Stepper`'s contract. Imports TensorFlow when it is made. One thread at a time.

    With `states_stay` it is `worker.core.slots.HoldsStates`, too: stepped states are not written to `states`, and what
    is in `states` is not looked at again, until they are fetched and forgotten.
    """

    def __init__(self, program: StepProgram) -> None:
        with importing_tensorflow():
            import tensorflow as tf

        self.features = program.features
        self.state_size = program.state_size
        self.columns = program.columns
        self.releases_lock = True
        self.states_stay = False
        self._tf = tf
        size = program.state_size
        self._states = tf.Variable(tf.zeros([1, size]), shape=tf.TensorShape([None, size]), trainable=False)
        self._held: BoolArray = np.zeros(0, np.bool_)
        self.rows = _rows_for(program)
        """Streams of a wave that it is compiled for; the last is also the most samples of a call."""
        self._call = _traced(tf, program, self._states, self.rows)

    def hold_states(self) -> None:
        """Let states stay from now on, and compile for every number of rows, so that no batch waits for it."""
        self.states_stay = True
        nothing = (np.empty((0, self.features), np.float32), np.empty(0, np.int32))
        sizes, each_once = np.zeros(len(self.rows), np.int64), np.arange(len(self.rows) + 1)
        self._called(np.full(self.rows[-1], UNUSED), *nothing, sizes, each_once)

    def step_batch(
        self, slots: Int64Array, features: Float32Array, states: Float32Array, steps: Int32Array
    ) -> Float32Array:
        """See worker.ports.Stepper."""
        answers = np.empty((len(slots), self.columns), np.float32)
        for start in range(0, len(slots), self.rows[-1]):
            part = slice(start, start + self.rows[-1])
            answers[part] = self._step(slots[part], features[part], states, steps[part])
        return answers

    def _step(self, slots: Int64Array, features: Float32Array, states: Float32Array, steps: Int32Array) -> Float32Array:
        distinct, cut = waves(slots)
        self._upload(distinct, states)
        sizes = np.array([len(wave) for wave in cut])
        first_waves = np.append(np.searchsorted(-sizes, -np.array(self.rows[::-1])), len(sizes))
        order = np.concatenate(cut)
        found = self._called(distinct + 1, features[order], steps[order], sizes, first_waves)
        answers = np.empty((len(slots), self.columns), np.float32)
        answers[order] = found[: len(order)]
        if not self.states_stay:
            self.fetch(distinct, states)
            self.forget(distinct)
        return answers

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

    def _called(
        self, places: Int64Array, x: Float32Array, steps: Int32Array, sizes: Int64Array, first_waves: Int64Array
    ) -> Float32Array:
        """The call's answers (M, columns) to samples that lie wave after wave; see `_traced`."""
        length = _padded_length(self.rows)
        samples = np.zeros((length, self.features), np.float32)
        samples[: len(x)] = x
        # Two arguments instead of six: each costs 40 µs a call.
        numbers = np.zeros((5, length), np.int32)
        numbers[0] = UNUSED
        lines: list[Int64Array | Int32Array] = [places, steps, sizes, np.cumsum(sizes) - sizes, first_waves]
        for line, values in zip(numbers, lines, strict=True):
            line[: len(values)] = values
        found: Float32Array = self._call(self._tf.constant(samples), self._tf.constant(numbers)).numpy()
        return found


def _rows_for(program: StepProgram) -> tuple[int, ...]:
    sample = program.features + program.columns
    fitting = min(STATE_FLOATS_MAX // max(1, program.state_size), SAMPLE_FLOATS_MAX // sample)
    return tuple(rows for rows in ROWS if rows <= fitting) or ROWS[:1]


def _padded_length(rows: tuple[int, ...]) -> int:
    """Of the samples of a call: the last wave, too, is read and written as many rows as it was compiled for."""
    return rows[-1] + int(np.diff((0, *rows)).max())


def _traced(tf: Any, program: StepProgram, states: Any, rows: tuple[int, ...]) -> Any:
    """x (M, F) float32, numbers (5, M) int32 → answers (M, columns). Zeros behind what is used.

    The numbers are places, steps, sizes, offsets and first_waves. Wave k steps the states at the first sizes[k] places
    by the samples from offsets[k] on. first_waves has the first wave of each number of rows, widest first, and the
    number of waves.
    """
    namespace = TensorFlowNamespace(tf)
    length = _padded_length(rows)
    line, number = tf.TensorSpec([length], tf.int32), tf.TensorSpec([], tf.int32)
    x_spec, answers_spec = tf.TensorSpec([length, program.features]), tf.TensorSpec([length, program.columns])
    state_spec = tf.TensorSpec([None, program.state_size])
    loop_specs = [state_spec, answers_spec, x_spec, line, line, line, number, number]

    @tf.function(jit_compile=True, autograph=False, input_signature=loop_specs)
    def loop(state: Any, answers: Any, x: Any, steps: Any, sizes: Any, offsets: Any, first: Any, last: Any) -> Any:
        row = tf.range(tf.shape(state)[0])

        def wave(k: Any, state: Any, answers: Any) -> Any:
            mine = offsets[k] + row  # gathered, because XLA compiles a slice anew for every place it begins at
            now = tf.where(row < sizes[k], tf.gather(steps, mine), 0)
            own = tf.where((now == 1)[:, None], tf.zeros_like(state), state)
            found, after = program.graph(namespace, tf.gather(x, mine), own, now)
            after = tf.where((now > 0)[:, None], tf.concat(after, axis=1), state)
            # Rows behind the wave's own are the next wave's, which writes them after this.
            return k + 1, after, tf.tensor_scatter_nd_update(answers, mine[:, None], found)

        return tf.while_loop(lambda k, *_: k < last, wave, (first, state, answers))[1:]

    @tf.function(autograph=False, input_signature=[x_spec, tf.TensorSpec([5, length], tf.int32)])
    def call(x: Any, numbers: Any) -> Any:
        places, steps, sizes, offsets, first_waves = tf.unstack(numbers)
        answers = tf.zeros([length, program.columns])
        bounds = tf.unstack(first_waves[: len(rows) + 1])
        for count, first, last in zip(reversed(rows), bounds[:-1], bounds[1:], strict=True):

            def step_these(count: int = count, first: Any = first, last: Any = last, answers: Any = answers) -> Any:
                mine = places[:count]
                after, found = loop(tf.gather(states, mine), answers, x, steps, sizes, offsets, first, last)
                states.scatter_update(tf.IndexedSlices(after, mine))
                return found

            answers = tf.cond(first < last, step_these, lambda answers=answers: answers)
        return answers

    # Called as it is, a function looks its arguments up anew: 170 µs a call.
    return call.get_concrete_function()
