"""Layers that can be stepped only together with the one after them: padding, joined flattened sequences and attention
pooling; and `RNN`, which is as many layers as it has cells.

The first layers of such a group give an unfinished value, and the last one finishes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import Any

from worker.model.files.weights import WAY_OUT
from worker.model.program import Node
from worker.model.rules.activation import activation
from worker.model.rules.attention import attention_pooling
from worker.model.rules.cells import layers_of_cells
from worker.model.rules.context import OR_BUFFER, Layer, weighted
from worker.model.rules.convolution import zeros_before
from worker.model.rules.elementwise import stateless
from worker.model.rules.table import ATTENTION_RULES, NOTHING_AT_INFERENCE, RULES, WINDOWS
from worker.model.value import Value

PADDED, JOINED, WEIGHTS, WEIGHTED = "padded", "joined", "weights", "weighted"
NEXT = {
    PADDED: (
        "zeros before a sequence must be followed by a convolution or pooling",
        f"use Conv1D(padding='causal'){OR_BUFFER}",
    ),
    JOINED: (
        "a flattened sequence joined with something else must be followed by Dense",
        f"put Dense right behind it{OR_BUFFER}",
    ),
    WEIGHTS: (
        "a softmax over time must be multiplied with a sequence, and that summed over time",
        f"end the attention in Multiply and a sum over axis=1{OR_BUFFER}",
    ),
    WEIGHTED: (
        "a sequence weighted by a softmax over time must be summed over time",
        f"end the attention in a sum over axis=1{OR_BUFFER}",
    ),
}
"""What an unfinished value of each kind needs, and the way out where it does not get it."""
ONE_LENGTH = f"give its branches the same strides and windows{OR_BUFFER}"
EACH_NUMBER = ("Activation", "LeakyReLU", "ReLU", "ELU", "Rescaling", "BatchNormalization")
"""Layers that may lie between joining and Dense."""

Add = Callable[[Layer, Node, list[Value]], Value]


def unfinished(layer: Layer, inputs: list[Value]) -> Value | None:
    """The value of a layer that a later one finishes, None for all others. Raises ModelNotStreamable."""
    kinds = [each.kind for each in inputs]
    axis = layer.config.get("axis", -1)
    if layer.class_name in NOTHING_AT_INFERENCE and kinds[0] in NEXT:
        return inputs[0]
    if layer.class_name == "ZeroPadding1D":
        zeros = zeros_before(layer)
        return replace(inputs[0], kind=PADDED, padding=inputs[0].padding + zeros) if zeros else inputs[0]
    if layer.class_name == "Softmax" and kinds == ["sequence"] and _is_over_time(layer):
        _check_unmasked(layer, inputs)
        return replace(inputs[0], kind=WEIGHTS)
    if layer.class_name == "Multiply" and sorted(kinds) == ["sequence", WEIGHTS]:
        return _weighted(layer, inputs)
    if layer.class_name == "Concatenate" and {"flat", JOINED} & set(kinds) and axis in (-1, 1):
        if not set(kinds) <= {"flat", "last", "end", JOINED}:
            raise layer.refused(f"its inputs are of different kinds ({' and '.join(sorted(set(kinds)))})")
        parts = tuple(part for each in inputs for part in (each.parts or (each,)))
        return replace(inputs[0], kind=JOINED, parts=parts, exact_from=max(each.exact_from for each in inputs))
    return None


def finished(layer: Layer, inputs: list[Value], steps: int | None, add: Add) -> Value | None:
    """Add the nodes of a layer that finishes values, or that is several layers; None for all others.

    Raises ModelNotStreamable for unfinished values that this layer cannot finish.
    """
    kinds = [each.kind for each in inputs]
    if not set(kinds) & set(NEXT):
        return _cells(layer, inputs[0], add) if layer.class_name == "RNN" else None
    if kinds == [PADDED] and layer.class_name in WINDOWS:
        return None
    if kinds == [JOINED] and layer.class_name == "Dense":
        return _dense_of_parts(layer, inputs[0].parts, steps, add)
    if kinds == [JOINED] and layer.class_name in EACH_NUMBER:
        return _each_part(layer, inputs[0], steps, add)
    if kinds == [WEIGHTED] and layer.class_name in ("Sum", "Mean", "GlobalAveragePooling1D"):
        if layer.class_name != "GlobalAveragePooling1D" and layer.config.get("axis") not in (1, -2, [1], [-2]):
            raise layer.refused("its axis is not time", f"reduce over axis=1{OR_BUFFER}")
        if layer.flag("keepdims"):
            raise layer.refused("it keeps the dimension of time", f"build the model without keepdims{OR_BUFFER}")
        return _pooled(layer, inputs[0].parts, layer.class_name != "Sum", add)
    if kinds in ([WEIGHTS, "sequence"], ["sequence", WEIGHTS]) and layer.class_name == "Dot":
        return _dot(layer, inputs, add)
    raise layer.refused(*NEXT[next(kind for kind in kinds if kind in NEXT)])


def _cells(layer: Layer, value: Value, add: Add) -> Value:
    for inner in layers_of_cells(layer):
        value = add(inner, RULES[inner.class_name](inner), [value])
    return value


def _is_over_time(layer: Layer) -> bool:
    return not layer.is_distributed and layer.shape is None and layer.config.get("axis", -1) in (1, -2, [1], [-2])


def _check_unmasked(layer: Layer, inputs: list[Value]) -> None:
    if any(each.masked for each in inputs):
        raise layer.refused("it would lose the mask", "use Masking in front of recurrent layers")


def _weighted(layer: Layer, inputs: list[Value]) -> Value:
    """Of weights and a sequence, in any order."""
    _check_unmasked(layer, inputs)
    scores, values = sorted(inputs, key=lambda each: each.kind != WEIGHTS)
    if scores.width not in (1, values.width):
        raise layer.refused(
            f"{scores.width} weights a step meet {values.width} features", f"give them one width{OR_BUFFER}"
        )
    if scores.schedule != values.schedule:
        raise layer.refused("its inputs have different lengths", ONE_LENGTH)
    first = max(scores.exact_from, values.exact_from)
    return replace(values, kind=WEIGHTED, parts=(scores, values), exact_from=first)


def _dot(layer: Layer, inputs: list[Value], add: Add) -> Value:
    """With one weight a step it is Multiply and the sum over time at once."""
    parts = _weighted(layer, inputs).parts
    if layer.config.get("axes") not in (1, [1, 1]) or layer.flag("normalize") or parts[0].width != 1:
        raise layer.refused(
            "it is not a sum over time with one weight a step", f"multiply, and sum over axis=1{OR_BUFFER}"
        )
    return _pooled(layer, parts, False, add)


def _pooled(layer: Layer, parts: tuple[Value, ...], mean: bool, add: Add) -> Value:
    scores, values = parts
    layer = replace(layer, width=values.width, kind="sequence")
    return add(layer, attention_pooling(layer, scores.width, mean), [scores, replace(values, kind="sequence")])


def _of_part(layer: Layer, part: Value, number: int, steps: int | None) -> Layer:
    timesteps, waits = part.schedule.length(steps), not part.schedule.always or part.masked
    name = f"{layer.name}/{number}"
    return replace(layer, name=name, kind=part.kind, width=part.width, timesteps=timesteps, waits=waits)


def _dense_of_parts(layer: Layer, parts: tuple[Value, ...], steps: int | None, add: Add) -> Value:
    """The rows of the kernel belong to the parts in their order: a product of each, then their sum."""
    units = layer.units()
    inner, rows = _of_parts(layer, parts, steps)
    kernel, bias = weighted(layer, [(sum(rows), units)], (units,))
    products, first = [], 0
    for each, part, count in zip(inner, parts, rows, strict=True):
        config = {"units": units, "use_bias": False}
        one = replace(each, class_name="Dense", config=config, weights=[kernel[first : first + count]])
        products.append(add(one, RULES["Dense"](one), [part]))
        first += count
    function = activation(layer, rank=2)
    whole = replace(layer, kind="end", timesteps=steps)

    def together(xp: Any, values: Any) -> Any:
        return function(xp, reduce(xp.add, values) + bias)

    return add(whole, stateless(whole, together, width=units), products)


def _of_parts(layer: Layer, parts: tuple[Value, ...], steps: int | None) -> tuple[list[Layer], list[int]]:
    """The layer on each part, and how many numbers that has."""
    inner = [_of_part(layer, part, number, steps) for number, part in enumerate(parts, 1)]
    return inner, [each.width * (each.length("it follows Flatten") if each.kind == "flat" else 1) for each in inner]


def _each_part(layer: Layer, joined: Value, steps: int | None, add: Add) -> Value:
    """Of weights, too, each part has its own."""
    inner, rows = _of_parts(layer, joined.parts, steps) if layer.weights else ([], [])
    if any(weight.shape != (sum(rows),) for weight in layer.weights):
        raise layer.refused(f"its weights are not of {sum(rows)} numbers each", WAY_OUT)
    parts, first = [], 0
    for number, part in enumerate(joined.parts):
        one = inner[number] if inner else _of_part(layer, part, number + 1, steps)
        if inner:
            one = replace(one, weights=[weight[first : first + rows[number]] for weight in layer.weights])
            first += rows[number]
        parts.append(add(one, RULES[layer.class_name](one), [part]))
    return replace(joined, parts=tuple(parts))


def check_alike(layer: Layer, inputs: list[Value]) -> None:
    """Of a layer with several values. Raises ModelNotStreamable where they cannot be put together step by step."""
    if layer.class_name in ATTENTION_RULES:
        _check_unmasked(layer, inputs)
    kinds = sorted({each.kind for each in inputs})
    if len(kinds) != 1 and kinds != ["end", "last"]:
        raise layer.refused(
            f"its inputs are of different kinds ({' and '.join(kinds)})", f"end its branches alike{OR_BUFFER}"
        )
    if kinds == ["flat"]:
        way_out = f"join them before Flatten, or by Concatenate and Dense{OR_BUFFER}"
        raise layer.refused("it joins flattened sequences", way_out)
    if len({each.schedule for each in inputs}) != 1:
        raise layer.refused("its inputs have different lengths", ONE_LENGTH)
