"""A compiled model: layers in order, each with its slice of the state row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from worker.core.types import Float32Array, Int32Array
from worker.model.activations import sigmoid, softmax
from worker.model.kernel.operations import KernelOp


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

    `step(x (B, in), state (B, s), steps (B,)) → y (B, out)` in float32; it writes the new state into `state`, and the
    next call may overwrite `y`.
    `whole(x (N, T, in)) → (N, T, out)` in float64, every prefix at once, written independently of `step`.
    """

    layer: str
    class_name: str
    kind: str
    width: int
    state_floats: int
    step: Callable[[Any, Any, Any], Any]
    whole: Callable[[Any], Any]
    exact: str = "every step"
    kernel: tuple[KernelOp, ...] | None = None
    """The same for the kernel; None where it cannot express the layer."""


class StepProgram:
    """What an engine runs. Shapes: features (B, F), state (B, S), logits (B, K), all float32; steps (B,) 1-based."""

    def __init__(
        self,
        *,
        name: str,
        features: int,
        timesteps: int | None,
        nodes: tuple[Node, ...],
        activation: str,
        exactness: str,
        fingerprint: str,
    ) -> None:
        self.name = name
        self.features = features
        self.timesteps = timesteps
        self.nodes = nodes
        self.outputs = nodes[-1].width if nodes else features
        self.activation = activation
        self.exactness = exactness
        self.fingerprint = fingerprint
        ends = list(accumulate(node.state_floats for node in nodes))
        self.state_size = ends[-1] if ends else 0
        self._columns = [(node, slice(end - node.state_floats, end)) for node, end in zip(nodes, ends, strict=True)]

    @property
    def is_probability(self) -> bool:
        """Whether the head's activation gives probabilities."""
        return self.activation in ("sigmoid", "softmax")

    @property
    def plan(self) -> tuple[PlanRow, ...]:
        return tuple(
            PlanRow(node.layer, node.class_name, node.kind, node.state_floats, node.exact) for node in self.nodes
        )

    def advance(self, features: Float32Array, state: Float32Array, steps: Int32Array) -> Float32Array:
        """Logits of one sample of each of B streams; `state` is stepped in place. Valid until the next call.

        Where `steps` is 1 the given state is ignored. One thread at a time.
        """
        first = steps == 1
        if np.count_nonzero(first):  # cheaper than any() on few rows
            state[first] = 0
        values: Any = features
        for node, columns in self._columns:
            values = node.step(values, state[:, columns], steps)
        return values  # type: ignore[no-any-return]

    def step(self, features: Float32Array, state: Float32Array, steps: Int32Array) -> tuple[Float32Array, Float32Array]:
        """`advance` on copies: (logits, new state)."""
        after = np.array(state, np.float32)
        return np.array(self.advance(features, after, steps)), after

    def outputs_of(self, logits: Float32Array) -> Float32Array:
        """The head's activation, (N, K) → (N, K); never overflows."""
        if self.activation == "sigmoid":
            return sigmoid(np, logits).astype(np.float32)  # type: ignore[no-any-return]
        if self.activation == "softmax":
            return softmax(np, logits).astype(np.float32)  # type: ignore[no-any-return]
        return logits

    def whole(self, features: Any) -> Any:
        """Logits of every prefix, (N, T, F) → (N, T, K), in float64, layer by layer over the whole sequence."""
        values = np.asarray(features, np.float64)
        for node in self.nodes:
            values = node.whole(values)
        return values
