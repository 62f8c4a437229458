"""What a graph ends in: the activations that turn logits into outputs, and whether buffer mode could serve it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from worker.model.activations import activation_name
from worker.model.graph import INPUT, Graph, Place
from worker.model.rules.table import FLATTENING, IGNORED, OPERATIONS

HEADS = ("sigmoid", "softmax")
_OVER_TIME = (*FLATTENING, "GlobalAveragePooling1D", "GlobalMaxPooling1D", "Dot", "Mean", "Max", "Min", "Sum")
"""Layers that give one value of a sequence."""


@dataclass(frozen=True, slots=True)
class Heads:
    """`outputs`: of each output the place that it is the value of, and the activation that makes it of its logits.

    `places` are those with an activation; `taken` those of them whose value, activation included, other layers take.
    """

    outputs: tuple[tuple[int, str], ...]
    places: dict[int, str]
    taken: frozenset[int]


def heads_of(graph: Graph) -> Heads:
    """What is made of the logits that a graph ends in."""
    outputs = tuple(_head(graph, output) for output in graph.outputs)
    places = {number: name for number, name in outputs if name != "linear"}
    taken = (_source(graph, each) for place in graph.places if not _is_ignored(place) for each in place.inputs)
    return Heads(outputs, places, frozenset(places) & frozenset(taken))


def _head(graph: Graph, output: int) -> tuple[int, str]:
    output = _source(graph, output)
    if output == INPUT:
        return output, "linear"
    class_name, config = _distributed(graph.places[output - 1])
    if class_name == "Softmax" and config.get("axis", -1) in (-1, [-1]):
        return output, "softmax"
    operation = OPERATIONS.get(class_name)
    name = activation_name((operation[1] if operation else config).get("activation"))
    if (class_name in ("Dense", "Activation") or operation) and name in HEADS:
        return output, str(name)
    return output, "linear"


def _source(graph: Graph, number: int) -> int:
    """The value that this one is, but for layers that change nothing."""
    while number != INPUT and _is_ignored(graph.places[number - 1]):
        number = graph.places[number - 1].inputs[0]
    return number


def _is_ignored(place: Place) -> bool:
    return place.class_name in IGNORED and len(place.inputs) == 1


def _distributed(place: Place) -> tuple[str, dict[str, Any]]:
    """Class and configuration of a layer, or of the one that `TimeDistributed` distributes."""
    inner = place.config.get("layer")
    if place.class_name != "TimeDistributed" or not isinstance(inner, dict):
        return place.class_name, place.config
    config = inner.get("config")
    return str(inner.get("class_name")), config if isinstance(config, dict) else {}


def could_be_buffered(graph: Graph) -> bool:
    """Whether buffer mode takes models that end so: with one sigmoid or softmax of the sequence."""
    if len(graph.outputs) != 1 or graph.outputs[0] == INPUT:
        return False
    head = graph.places[graph.outputs[0] - 1]
    is_layer_of_the_model = head.class_name in ("Dense", "Activation") and "/" not in head.path
    return (
        is_layer_of_the_model
        and activation_name(head.config.get("activation")) in HEADS
        and not has_steps(graph)[graph.outputs[0]]
    )


def has_steps(graph: Graph) -> list[bool]:
    """Of each value of a graph, whether there is one for each step, as far as the classes of layers tell."""
    found = [True]
    for place in graph.places:
        inner = place.config.get("layer")
        config = inner.get("config") if isinstance(inner, dict) else place.config
        returns = config.get("return_sequences") if isinstance(config, dict) else None
        if place.class_name == "GetItem":
            keys = place.arguments[0] if place.arguments else None
            has_steps = not (isinstance(keys, list) and any(isinstance(key, int) for key in keys))
        elif place.class_name in ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional"):
            has_steps = returns is True
        elif place.class_name == "InputLayer":
            has_steps = not place.config.get("is_static")
        else:
            has_steps = place.class_name not in _OVER_TIME and any(found[each] for each in place.inputs)
        found.append(has_steps)
    return found
