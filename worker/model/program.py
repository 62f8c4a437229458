"""A compiled model: layers in the order in which they are computed, each with its slice of the state row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import Any

import numpy as np

from worker.core.types import Float32Array, Int32Array
from worker.model.activations import sigmoid, softmax
from worker.model.inputs import ModelInput
from worker.model.kernel.operations import KernelOp
from worker.model.precision import FLOAT32
from worker.model.schedule import Schedule

ALWAYS = Schedule()


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One layer for a person: `exact` says at which steps its output equals the trained layer's."""

    layer: str
    class_name: str
    kind: str
    state_floats: int
    exact: str


@dataclass(frozen=True, slots=True)
class Node:
    """One layer as a step and as a whole.

    `step(xp, x (B, in), state (B, s), steps (B,)) → (y (B, out), new state)` in float32 over an array namespace: NumPy
    or that of tensorflow_stepper.py. `steps` counts the new values that reached the layer, from 1.
    `whole(x (N, T, in)) → (N, T', out)` in float64, every prefix at once, written independently of `step`; T' are the
    new values of `schedule`. With several inputs `x` is a tuple of them.
    """

    layer: str
    class_name: str
    kind: str
    width: int
    state_floats: int
    step: Callable[[Any, Any, Any, Any], tuple[Any, Any]]
    whole: Callable[[Any], Any]
    exact: str = "every step"
    kernel: tuple[KernelOp, ...] | None = None
    """The same for the kernel; None where it cannot express the layer."""
    schedule: Schedule = ALWAYS
    """Which of the new values that reach it it answers with a new one."""
    held: Callable[[Any, Any], Any] | None = None
    """(xp, state (B, s)) → the y of the last new value; for layers with a state that can wait for a value."""
    whole_masked: Callable[[Any, Any], Any] | None = None
    """`whole` with mask (N, T): a layer that leaves masked steps out."""
    mask: Callable[[Any, Any], Any] | None = None
    """(xp, x) → bool, which rows count from here on; for `Masking`."""
    mask_value: float | None = None
    """What all features of a row are that does not count."""
    shape: tuple[int, ...] | None = None
    """Of one answer, where it is not one row of features: see value.py."""
    merged: Callable[[Any, Any, Any], Any] | None = None
    """(xp, values, for each which steps count (…, 1), None where all) → y; for layers that replace masked values."""
    zeros_where_masked: bool = False
    """Whether it answers a masked step with zeros instead of its last answer (`zero_output_for_mask`)."""
    in_place: Callable[[Any, Any, Any], Any] | None = None
    """`step` in NumPy, faster: (x, state, steps) → y; it writes `state`, and the next call may overwrite `y`."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """Which values reach a node, and on what schedule; value 0 is the input, value i + 1 that of node i."""

    inputs: tuple[int, ...]
    schedule: Schedule = ALWAYS
    """Of the values that reach it."""
    produces: Schedule = ALWAYS
    """Of its own values."""
    masks: tuple[int, ...] = ()
    """The values of the `Masking` layers whose masked steps it leaves out."""
    masks_in_all: bool = False
    """Whether a step counts only if it does in all of them, rather than in any."""
    part_masks: tuple[tuple[int, ...], ...] = ()
    """Of a node that replaces masked values: the same for each of its inputs, nothing for those without a mask."""


def _parts(xp: Any, masks: dict[int, Any], wired: Wiring) -> list[Any]:
    """Which steps count in each of a node's inputs."""
    return [counted_steps(xp, [masks[each] for each in part], False) if part else None for part in wired.part_masks]


def _merged(xp: Any, node: Node, values: Any, counts: list[Any]) -> Any:
    assert node.merged is not None, "compiled for masked values"
    return node.merged(xp, values, [each if each is None else each[..., None] for each in counts])


def counted_steps(xp: Any, masks: Sequence[Any], in_all: bool) -> Any:
    """The masks of several layers → which steps count."""
    return reduce(xp.logical_and if in_all else xp.logical_or, masks)


class StepProgram:
    """What an engine runs. Shapes: features (B, F), state (B, S), logits (B, K), all float32; steps (B,) 1-based.

    With state weights its answers are (B, 2K): behind the logits the scores of the stepped state.
    """

    def __init__(
        self,
        *,
        name: str,
        features: int,
        timesteps: int | None,
        nodes: tuple[Node, ...],
        activations: Sequence[str],
        exactness: str,
        fingerprint: str,
        inputs: Sequence[ModelInput] = (),
        wiring: Sequence[Wiring] = (),
        output_values: Sequence[int] = (),
        exact_from: int = 1,
        computed_from: int | None = None,
        one_output_per_step: bool = False,
        keras_precision: str = FLOAT32,
    ) -> None:
        """Without `wiring` the nodes are a chain; `output_values` are the values whose columns are the logits.

        `activations`: of each of the output values, what makes it of its logits.
        `exact_from`: the first step at which there is anything to be exact. `computed_from`: the first one whose logits
        say anything; by default the same. `one_output_per_step`: the model was trained on an answer of each step's own.
        `keras_precision`: what Keras computes the file in.
        """
        self.name = name
        self.features = features
        self.inputs = tuple(inputs) or (ModelInput("input", 0, features),)
        self.timesteps = timesteps
        self.nodes = nodes
        self.activation = activations[0] if set(activations) == {"sigmoid"} else "+".join(activations)
        """Of the only head; those of several in order, but for sigmoids, which are one head for all their numbers."""
        self.exactness = exactness
        self.exact_from = exact_from
        self.computed_from = exact_from if computed_from is None else computed_from
        self.one_output_per_step = one_output_per_step
        self.keras_precision = keras_precision
        self.fingerprint = fingerprint
        self.mask_values = tuple(node.mask_value for node in nodes if node.mask_value is not None)
        """What the `Masking` layers look for."""
        self._wiring = tuple(wiring) or tuple(Wiring((number,)) for number in range(len(nodes)))
        self._output_values = tuple(output_values) or (len(nodes),)
        self._activations = tuple(activations)
        self.is_chain = all(
            wired == Wiring((number,)) for number, wired in enumerate(self._wiring)
        ) and self._output_values == (len(nodes),)
        """Whether each node takes what the one before it gives, at every step."""
        widths = [features, *(node.width for node in nodes)]
        self.outputs = sum(widths[value] for value in self._output_values)
        each = tuple((name, widths[at]) for name, at in zip(activations, self._output_values, strict=True))
        self.heads = (("sigmoid", self.outputs),) if self.activation == "sigmoid" else each
        """Activation and number of outputs of each, in the order of the outputs."""
        ends = list(accumulate(node.state_floats for node in nodes))
        self.state_size = ends[-1] if ends else 0
        self._columns = [(node, slice(end - node.state_floats, end)) for node, end in zip(nodes, ends, strict=True)]
        self.state_weights: Float32Array | None = None
        """(R, S, K): the scores at step t are the state after it times state_weights[t - 1], and zeros after step R."""
        self._weights_by_output: Float32Array | None = None
        """The same as (R, K, S): sums over neighbours in memory are up to three times as fast."""

    def with_state_weights(self, weights: Float32Array) -> StepProgram:
        """A copy whose answers have scores: weights (R, S, K) float32, R at least 1.

        It shares the layers' workspace with this program: step both in one thread. Raises ValueError for another shape.
        """
        weights = np.ascontiguousarray(weights, np.float32)
        wanted = (self.state_size, self.outputs)
        if weights.ndim != 3 or weights.shape[1:] != wanted or not len(weights):
            raise ValueError(f"state weights have the shape {weights.shape}, not (steps, {wanted[0]}, {wanted[1]})")
        scored = copy(self)
        scored.state_weights = weights
        scored._weights_by_output = np.ascontiguousarray(weights.transpose(0, 2, 1))
        return scored

    @property
    def columns(self) -> int:
        """Of an answer: the logits, and as many scores where there are state weights."""
        return self.outputs if self.state_weights is None else 2 * self.outputs

    @property
    def is_probability(self) -> bool:
        """Whether all that is given are probabilities."""
        return not self.heads_without_probability

    @property
    def heads_without_probability(self) -> tuple[str, ...]:
        """The layers whose outputs are no probabilities."""
        heads = zip(self._output_values, self._activations, strict=True)
        layers = ["input", *(node.layer for node in self.nodes)]
        return tuple(layers[value] for value, name in heads if name not in ("sigmoid", "softmax"))

    @property
    def plan(self) -> tuple[PlanRow, ...]:
        return tuple(
            PlanRow(node.layer, node.class_name, node.kind, node.state_floats, node.exact) for node in self.nodes
        )

    def advance(self, features: Float32Array, state: Float32Array, steps: Int32Array) -> Float32Array:
        """Answers (B, columns) to one sample of each of B streams, until the next call; `state` is stepped in place.

        Where `steps` is 1 the given state is ignored. One thread at a time.
        """
        first = steps == 1
        if np.count_nonzero(first):  # cheaper than any() on few rows
            state[first] = 0
        if not self.is_chain:
            logits, after = self._layers(np, features, state, steps)
            for (_, columns), new in zip(self._columns, after, strict=True):
                state[:, columns] = new
            found: Float32Array = self._with_scores(np, logits, state, steps)
            return found
        y: Any = features
        for node, columns in self._columns:
            own = state[:, columns]
            if node.in_place is not None:
                y = node.in_place(y, own, steps)
            else:
                y, after = node.step(np, y, own, steps)
                own[...] = after
        answers: Float32Array = self._with_scores(np, y, state, steps)
        return answers

    def graph(self, xp: Any, features: Any, state: Any, steps: Any) -> tuple[Any, list[Any]]:
        """Answers (B, columns) and each node's new state, by any array namespace; `state` is left as it is."""
        logits, states = self._layers(xp, features, state, steps)
        if self.state_weights is None:
            return logits, states
        return self._with_scores(xp, logits, xp.concatenate(states, axis=1), steps), states

    def _with_scores(self, xp: Any, logits: Any, state: Any, steps: Any) -> Any:
        """The logits, and behind them the scores of the state after the step where there are state weights."""
        if self._weights_by_output is None:
            return logits
        weighted = len(self._weights_by_output)
        # Rows after the last weighted step borrow its weights: cheaper than to cut them out, and zeroed below.
        own = xp.take(self._weights_by_output, xp.minimum(steps, weighted) - 1, axis=0, mode="clip")
        scores = xp.einsum("bs,bks->bk", state, own)
        scores = xp.where((steps <= weighted)[:, None], scores, xp.asarray(0, scores.dtype))
        return xp.concatenate([logits, scores], axis=1)

    def _layers(self, xp: Any, features: Any, state: Any, steps: Any) -> tuple[Any, list[Any]]:
        """Logits (B, K) and each node's new state; `state` is left as it is."""
        values: list[Any] = [features]
        masks: dict[int, Any] = {}
        states = []
        for (node, columns), wired in zip(self._columns, self._wiring, strict=True):
            inputs = wired.inputs
            x = values[inputs[0]] if len(inputs) == 1 else tuple(values[each] for each in inputs)
            own, counted, new = state[:, columns], steps, None
            if not wired.schedule.always:
                counted, new = wired.schedule.count(xp, steps), wired.schedule.is_new(steps)
            if wired.masks:
                mask = counted_steps(xp, [masks[each] for each in wired.masks], wired.masks_in_all)
                new = mask if new is None else new & mask
            if wired.part_masks:
                y, after = _merged(xp, node, x, _parts(xp, masks, wired)), own
            else:
                y, after = node.step(xp, x, own, counted)
            if new is not None and node.state_floats:
                # Only the rows that got a new value move on; the others keep their state and their last answer.
                assert node.held is not None, "compiled for values that are not new at every step"
                y = xp.where(new[:, None], y, node.held(xp, own))
                after = xp.where(new[:, None], after, own)
            if wired.masks and node.zeros_where_masked:
                y = xp.where(mask[:, None], y, xp.asarray(0, y.dtype))
            if node.mask is not None:
                masks[len(values)] = node.mask(xp, x)
            values.append(y)
            states.append(after)
        found = [values[each] for each in self._output_values]
        return found[0] if len(found) == 1 else xp.concatenate(found, axis=1), states

    def new_steps(self, timesteps: int) -> list[int]:
        """The steps, of so many, at which something new reaches the last layer."""
        schedule = self._wiring[-1].schedule if self._wiring else ALWAYS
        return [step for step in range(1, timesteps + 1) if schedule.is_new(step)]

    def step(self, features: Float32Array, state: Float32Array, steps: Int32Array) -> tuple[Float32Array, Float32Array]:
        """`advance` on copies: (answers, new state)."""
        after = np.array(state, np.float32)
        return np.array(self.advance(features, after, steps)), after

    def outputs_of(self, logits: Float32Array) -> Float32Array:
        """Each head's activation, (N, K) → (N, K); never overflows."""
        if len(self.heads) == 1:
            return _activated(self.activation, logits)
        parts, first = [], 0
        for name, width in self.heads:
            parts.append(_activated(name, logits[:, first : first + width]))
            first += width
        return np.concatenate(parts, axis=1)

    def whole(self, features: Any) -> Any:
        """Logits of every prefix, (N, T, F) → (N, T, K), in float64, layer by layer over the whole sequence."""
        values: list[Any] = [np.asarray(features, np.float64)]
        masks: dict[int, Any] = {}
        timesteps = values[0].shape[1]
        for node, wired in zip(self.nodes, self._wiring, strict=True):
            picked = [wired.schedule.picked(values[each]) for each in wired.inputs]
            x = picked[0] if len(picked) == 1 else tuple(picked)
            if wired.masks:
                assert node.whole_masked is not None, "compiled for a mask"
                mask = counted_steps(np, [masks[each] for each in wired.masks], wired.masks_in_all)
                y = node.whole_masked(x, wired.schedule.picked(mask))
            elif wired.part_masks:
                parts = _parts(np, masks, wired)
                y = _merged(np, node, x, [each if each is None else wired.schedule.picked(each) for each in parts])
            else:
                y = node.whole(x)
            if node.mask is not None:
                masks[len(values)] = wired.produces.held(node.mask(np, x)[..., None], timesteps)[..., 0] > 0
            values.append(wired.produces.held(y, timesteps) if not wired.produces.always else y)
        found = [values[each] for each in self._output_values]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=-1)


def _activated(name: str, logits: Float32Array) -> Float32Array:
    functions = {"sigmoid": sigmoid, "softmax": softmax}
    if name not in functions:
        return logits
    numbers: Float32Array = functions[name](np, logits).astype(np.float32)
    return numbers
