"""Calls of layers as files hold them: arguments, masks, which outputs are used, and what else changes the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worker.errors import ModelNotStreamable
from worker.model.rules.table import ATTENTION

LAYERS_MAX = 1000
"""Layers of one model, and calls of them."""
KERAS_2_OPERATORS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
"""What Keras 2 makes of an operator or a function of TensorFlow."""
KERAS_2_OPERATORS_REASON = "operators such as x + y are not read in files of Keras 2"
KERAS_2_OPERATORS_WAY_OUT = (
    "use layers such as Add() and Rescaling(), or build the model with Keras 3 and load the weights there"
)
WAYS_OUT = {
    "initial_state": "call it without initial_state, so that sequences begin with zeros",
    "return_attention_scores": "call it without return_attention_scores",
}
"""Of arguments that a call can do without."""
Key = tuple[str, int]
"""A layer's name and which of its calls."""
Reference = tuple[str, int, int]
"""A layer's name, which of its calls, and which tensor of that."""


def checked_keywords(entry: dict[str, Any], given: Any, keras_major: int) -> dict[str, Any]:
    """The keywords of a call of a layer. Raises ModelNotStreamable for what would change the numbers."""
    keywords: dict[str, Any] = given if isinstance(given, dict) else {}
    known = ("training", "mask") if keras_major >= 3 else ("training",)
    used = [key for key, value in keywords.items() if value is not None and key not in known]
    name = f"layer {entry['config']['name'][:60]!r} ({entry['class_name']})"
    if used:
        reason, way_out = _refusal(entry["class_name"], used[0], keras_major)
        raise ModelNotStreamable(f"{name} cannot be stepped: {reason}", way_out)
    # Keras 3 predicts with training=False whatever a call says.
    if keras_major < 3 and keywords.get("training"):
        raise ModelNotStreamable(
            f"{name} cannot be stepped: it is called with training=True, so Keras 2 predicts with dropout and with the "
            "statistics of each batch",
            "build the model without training=True, give it these weights, and save it again",
        )
    return keywords


def attention_call(entry: dict[str, Any], node: Any) -> tuple[dict[str, Any], Any]:
    """Of an attention layer of Keras 3: its values in the order of its arguments, its causal mask in its configuration.

    What other arguments there are is left as it is, and so are all other layers.
    """
    keywords = node.get("kwargs") if isinstance(node, dict) else None
    if entry["class_name"] not in ATTENTION or not isinstance(keywords, dict):
        return entry, node
    given = [keywords[key] for key in ("query", "value", "key") if keywords.get(key) is not None]
    others = {key: value for key, value in keywords.items() if key not in ("query", "value", "key")}
    causal = {"use_causal_mask": others.pop("use_causal_mask", None) or False}
    others = {key: value for key, value in others.items() if value is not False}
    arguments = [*node["args"], *given] if isinstance(node.get("args"), list) else node.get("args")
    return {**entry, "config": {**entry["config"], **causal}}, {**node, "args": arguments, "kwargs": others}


def tensors(arguments: Any) -> Iterator[Reference]:
    """The references to other calls in a call's arguments; nesting is bounded by the JSON's."""
    if isinstance(arguments, list):
        for each in arguments:
            yield from tensors(each)
    elif isinstance(arguments, dict) and arguments.get("class_name") == "__keras_tensor__":
        config = arguments.get("config")
        history: Any = config.get("keras_history") if isinstance(config, dict) else None
        named = isinstance(history, list) and len(history) == 3 and isinstance(history[0], str)
        if named and are_indices(history[1:]):
            yield history[0], history[1], history[2]


def masks(value: Any) -> list[Reference]:
    """The tensors of a `mask` argument, which is one, or a list with nothing where an input has none."""
    return list(tensors(value if isinstance(value, list) else [value]))


def are_indices(values: list[Any]) -> bool:
    """Whether they may number the calls and the outputs of a layer."""
    return all(type(each) is int and 0 <= each < LAYERS_MAX for each in values)


def _refusal(class_name: str, key: str, keras_major: int) -> tuple[str, str]:
    """Reason and way out of a call with an argument."""
    if class_name in KERAS_2_OPERATORS:
        return KERAS_2_OPERATORS_REASON, KERAS_2_OPERATORS_WAY_OUT
    if class_name in ATTENTION and keras_major < 3:
        reason = f"it is called with {key[:40]!r}, which is read in files of Keras 3 only"
        return reason, "build the model with Keras 3, load the weights there, and save it"
    return f"it is called with {key[:40]!r}", WAYS_OUT.get(key, "call it with its input only")


def check_outputs(path: Path, references: list[Reference], known: dict[Key, list[int]]) -> None:
    """Raises ModelNotStreamable where another than the first output of a layer is used."""
    for name, node, tensor in references:
        if tensor >= len(known.get((name, node), range(tensor + 1))):
            raise ModelNotStreamable(
                f"{path} uses output {tensor + 1} of layer {name[:60]!r}, such as a state (return_state) or attention "
                "scores, and the first one is what is read",
                "build the model on the first output only",
            )
