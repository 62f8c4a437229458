"""Attention of each step to those up to it (`use_causal_mask`): what it needs of a step is kept in a row of the state.

Scores and shapes are those of `keras/src/layers/attention`; a mask of later steps is the same as not having them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np

from worker.model.activations import softmax
from worker.model.files.weights import WAY_OUT, Array
from worker.model.program import Node
from worker.model.rules.context import OR_BUFFER, UNITS_MAX, Layer, is_whole, shown

Parts = Callable[[Any, Any], tuple[Any, Any]]
"""(xp, the values of a step (…, F)) → what it asks with (…, Q), the row that is kept of it (…, R)."""
Answer = Callable[[Any, Any, Any, Any], Any]
"""(xp, what is asked with (B, Q), rows (B, T, R), which of them there are (B, T)) → (B, width)."""


def multi_head_attention(layer: Layer) -> Node:
    """State: the keys and values of all heads at each step."""
    query, value, key = _inputs(layer)
    heads, size = layer.whole_number("num_heads"), layer.whole_number("key_dim")
    value_size = size if layer.config.get("value_dim") is None else layer.whole_number("value_dim")
    width = _output_width(layer, query)
    shapes: list[tuple[int, ...]] = [
        (query, heads, size),
        (key, heads, size),
        (value, heads, value_size),
        (heads, value_size, width),
    ]
    kernels, biases = _kernels_and_biases(layer, shapes)
    for_query, for_key, for_value = (kernel.reshape(len(kernel), -1) for kernel in kernels[:3])
    out = kernels[3].reshape(-1, width)

    def parts(xp: Any, x: Any) -> tuple[Any, Any]:
        keys, values = x[-1] @ for_key + biases[1], x[1] @ for_value + biases[2]
        return (x[0] @ for_query + biases[0]) / sqrt(size), xp.concatenate([keys, values], axis=-1)

    def answer(xp: Any, asked: Any, rows: Any, there: Any) -> Any:
        keys = xp.reshape(rows[:, :, : heads * size], (-1, rows.shape[1], heads, size))
        values = xp.reshape(rows[:, :, heads * size :], (-1, rows.shape[1], heads, value_size))
        scores = xp.einsum("bhk,bthk->bht", xp.reshape(asked, (-1, heads, size)), keys)
        weights = softmax(xp, xp.where(there[:, None], scores, -np.inf))
        together = xp.einsum("bht,bthv->bhv", weights, values)
        return xp.reshape(together, (-1, heads * value_size)) @ out + biases[3]

    return _attending(layer, heads * (size + value_size), width, parts, answer)


def attention(layer: Layer) -> Node:
    """`score_mode` dot or concat."""
    scale, factor = _scale_and_factor(layer)
    if factor is None:
        return _of_scores(layer, lambda xp, query, keys: scale * xp.einsum("bf,btf->bt", query, keys))
    return _of_scores(layer, lambda xp, q, keys: factor * xp.sum(xp.tanh(scale * (q[:, None] + keys)), axis=-1))


def additive_attention(layer: Layer) -> Node:
    """A sum of tanh over the features, each with a scale of its own."""
    query, _, _ = _inputs(layer)
    scale = layer.weights_of([(query,)])[0] if layer.flag("use_scale", True) else np.ones(query, np.float32)
    return _of_scores(layer, lambda xp, query, keys: xp.sum(scale * xp.tanh(query[:, None] + keys), axis=-1))


def _scale_and_factor(layer: Layer) -> tuple[Any, Any]:
    """Of `Attention`; no factor where the score is a product."""
    _inputs(layer)
    scaled, mode = layer.flag("use_scale"), layer.config.get("score_mode", "dot")
    if mode not in ("dot", "concat"):
        raise layer.refused(f"score_mode is {shown(mode)}, neither dot nor concat", WAY_OUT)
    given = layer.weights_of([()] * (scaled + (mode == "concat")))
    return given[0] if scaled else np.float32(1), given[-1] if mode == "concat" else None


def _of_scores(layer: Layer, scores: Callable[[Any, Any, Any], Any]) -> Node:
    """State: keys and values at each step, once where they are the same. `scores(xp, (B, F), (B, T, F)) → (B, T)`."""
    query, value, key = _inputs(layer)
    if query != key:
        raise layer.refused(f"queries of {query} features meet keys of {key}", "give them one width")
    both = len(layer.widths) == 3

    def parts(xp: Any, x: Any) -> tuple[Any, Any]:
        return x[0], xp.concatenate([x[1], x[2]], axis=-1) if both else x[1]

    def answer(xp: Any, asked: Any, rows: Any, there: Any) -> Any:
        weights = softmax(xp, xp.where(there, scores(xp, asked, rows[:, :, -key:]), -np.inf))
        return xp.einsum("bt,btf->bf", weights, rows[:, :, :value])

    return _attending(layer, value + key * both, value, parts, answer)


def _attending(layer: Layer, row: int, width: int, parts: Parts, answer: Answer) -> Node:
    timesteps = layer.length("it keeps every step")
    numbers = np.arange(1, timesteps + 1, dtype=np.int32)
    floats = timesteps * row

    def step(xp: Any, x: Any, state: Any, steps: Any) -> Any:
        asked, own = parts(xp, x)
        kept = xp.reshape(state[:, :floats], (-1, timesteps, row))
        rows = xp.where((steps[:, None] == numbers)[:, :, None], own[:, None], kept)
        y = answer(xp, asked, rows, steps[:, None] >= numbers)
        after = xp.reshape(rows, (-1, floats))
        return y, xp.concatenate([after, y], axis=1) if layer.waits else after

    def held(xp: Any, state: Any) -> Any:
        del xp
        return state[:, floats:]

    def whole(x: Any) -> Any:
        asked, rows = parts(np, x)
        out = np.empty((*rows.shape[:2], width))
        for t in range(1, rows.shape[1] + 1):
            out[:, t - 1] = answer(np, asked[:, t - 1], rows[:, :t], np.ones((len(rows), t), bool))
        return out

    size = floats + width * layer.waits
    return Node(layer.name, layer.class_name, "sequence", width, size, step, whole, held=held if layer.waits else None)


def _inputs(layer: Layer) -> tuple[int, int, int]:
    """The features of query, value and key. Raises ModelNotStreamable where a step looks at later ones."""
    if not layer.flag("use_causal_mask"):
        way_out = f"call it with use_causal_mask=True, use attention pooling{OR_BUFFER}"
        raise layer.refused("attention without a causal mask needs the whole window", way_out)
    if len(layer.widths) not in (2, 3):
        raise layer.refused(f"it is called with {len(layer.widths) or 1} value(s)", "call it with query and value")
    layer.check_sequence()
    return layer.widths[0], layer.widths[1], layer.widths[-1]


def _output_width(layer: Layer, query: int) -> int:
    """Of multi-head attention, after checking what would change its numbers."""
    if layer.flag("use_gate"):
        raise layer.refused("use_gate is not supported", f"build the model without it{OR_BUFFER}")
    if layer.config.get("sliding_window") is not None:
        raise layer.refused("sliding_window is not supported", f"build the model without it{OR_BUFFER}")
    if layer.config.get("attention_axes") not in (None, 1, [1]):
        raise layer.refused(
            "it attends to something else than steps", f"build the model without attention_axes{OR_BUFFER}"
        )
    wanted = layer.config.get("output_shape")
    wanted = wanted[0] if isinstance(wanted, list) and len(wanted) == 1 else wanted
    if wanted is not None and not is_whole(wanted, UNITS_MAX):
        raise layer.refused(f"output_shape is {shown(wanted)}, not a whole number from 1 to {UNITS_MAX}", WAY_OUT)
    return query if wanted is None else int(wanted)


def _kernels_and_biases(layer: Layer, shapes: list[tuple[int, ...]]) -> tuple[list[Array], list[Array]]:
    """Of query, key, value and output; the biases flat."""
    of_biases = [*(shape[1:] for shape in shapes[:3]), shapes[3][2:]]
    if not layer.flag("use_bias", True):
        return layer.weights_of(shapes), [np.zeros(np.prod(shape), np.float32) for shape in of_biases]
    given = layer.weights_of([shape for pair in zip(shapes, of_biases, strict=True) for shape in pair])
    return given[::2], [bias.reshape(-1) for bias in given[1::2]]
