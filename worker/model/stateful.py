"""Files built with `stateful=True`, whose recurrent layers carry their state from one call of the model to the next.

That is what the worker does for each stream, until its sequence ends. A file that takes one step a call, as stateful
models are often deployed, does not fix the length of sequences thereby.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from worker.errors import ModelNotStreamable
from worker.model.graph import Graph, Place
from worker.model.heads import has_steps
from worker.model.rules.table import MERGES, ROW_WISE

RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM1D", "ConvLSTM2D")
OF_ONE_STEP = (*ROW_WISE, *MERGES, "InputLayer", "Embedding", "TimeDistributed", "GetItem")
"""What makes of one step at a time the same as of all of them."""


def is_stateful(value: Any) -> bool:
    """Whether a layer in a configuration is; nesting is bounded by the JSON's."""
    if isinstance(value, dict):
        return value.get("stateful") is True or any(is_stateful(each) for each in value.values())
    return isinstance(value, list) and any(is_stateful(each) for each in value)


def check_calls(graph: Graph) -> None:
    """Raises ModelNotStreamable where a stateful layer is called twice: in Keras the calls share one state."""
    calls = Counter(place.path for place in graph.places if place.config.get("stateful") is True)
    for place in graph.places:
        if calls[place.path] > 1:
            raise _refused(place, "it is stateful and called more than once")


def check_one_step_a_call(graph: Graph) -> None:
    """Of a stateful model that takes one step a call. Raises ModelNotStreamable for a layer that would make something
    else of a sequence than of its steps one by one."""
    steps = has_steps(graph)
    for place in graph.places:
        if any(steps[each] for each in place.inputs) and (reason := _sees_other_steps(place)):
            raise _refused(place, f"the stateful model takes one step a call, and {reason}")


def _refused(place: Place, reason: str) -> ModelNotStreamable:
    return ModelNotStreamable(
        f"layer {place.name!r} ({place.class_name}) cannot be stepped: {reason}",
        "build the model for sequences, keras.Input((None, F)) without stateful, and give it these weights",
    )


def _sees_other_steps(place: Place) -> str:
    """Nothing where it does not."""
    if place.class_name in RECURRENT:
        return "" if place.config.get("stateful") is True else "it is not stateful and begins anew at every step"
    if place.config.get("mask_zero") or place.class_name == "Masking":
        return "Keras answers a masked step with zeros"
    keys = place.arguments[0] if place.arguments else None
    if place.class_name == "GetItem" and isinstance(keys, list) and keys[1:2] != [-1]:
        return "which steps it takes depends on how many there are"
    return "" if place.class_name in OF_ONE_STEP else "what it makes of one step is not what it makes of more"
