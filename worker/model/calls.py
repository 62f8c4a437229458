"""Calls of layers in the configuration of a functional model of Keras 3, made plain for graph.py.

What is not a value that is computed goes into the configuration of the layer that is called.
"""

from __future__ import annotations

from typing import Any

from worker.model.rules.context import CONSTANT_FIRST
from worker.model.rules.table import ATTENTION


def plain_call(entry: dict[str, Any], node: Any) -> tuple[dict[str, Any], Any]:
    """A layer's entry and one of its calls; all other arguments and layers are left as they are."""
    keywords = node.get("kwargs") if isinstance(node, dict) else None
    if not isinstance(keywords, dict):
        return entry, node
    if entry["class_name"] in ATTENTION:
        return _attention_call(entry, node, keywords)
    arguments = node.get("args")
    if isinstance(arguments, list) and len(arguments) > 1 and _is_constant(arguments[0]):
        return {**entry, "config": {**entry["config"], CONSTANT_FIRST: True}}, node
    return entry, node


def _attention_call(
    entry: dict[str, Any], node: dict[str, Any], keywords: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its values in the order of its arguments, its causal mask in its configuration."""
    given = [keywords[key] for key in ("query", "value", "key") if keywords.get(key) is not None]
    others = {key: value for key, value in keywords.items() if key not in ("query", "value", "key")}
    causal = {"use_causal_mask": others.pop("use_causal_mask", None) or False}
    others = {key: value for key, value in others.items() if value is not False}
    arguments = [*node["args"], *given] if isinstance(node.get("args"), list) else node.get("args")
    return {**entry, "config": {**entry["config"], **causal}}, {**node, "args": arguments, "kwargs": others}


def _is_constant(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_constant(each) for each in value)
    return isinstance(value, int | float)
