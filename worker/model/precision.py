"""The precision that Keras computes a file in; the program computes in float32 whatever it is."""

from __future__ import annotations

from typing import Any

FLOAT32 = "float32"
TOLERANCES = {"float16": 2e-3, "bfloat16": 2e-2}
"""Of a probability by Keras in that precision: four times what models of two layers differed by, and more."""
EXPECTED = {"float16": "1e-3", "bfloat16": "5e-3"}


def precision_of(configuration: dict[str, Any]) -> str:
    """The coarsest in which a layer computes: bfloat16, float16 or float32; float64 counts as float32.

    The policies `mixed_float16` and `mixed_bfloat16` keep float32 weights and compute in the other.
    """
    found = set(_policies(configuration.get("config")))
    return next((name for name in ("bfloat16", "float16") if {name, f"mixed_{name}"} & found), FLOAT32)


def note(precision: str) -> str:
    """What users of such a file should know; nothing for float32."""
    if precision == FLOAT32:
        return ""
    return (
        f"computed in float32; Keras computes this file in {precision}: differences of about {EXPECTED[precision]} "
        "are expected"
    )


def _policies(value: Any) -> set[str]:
    """The dtypes in a value at any depth; nesting is bounded by the JSON's."""
    if isinstance(value, list):
        return set[str]().union(*map(_policies, value))
    if not isinstance(value, dict):
        return set()
    given: Any = value.get("dtype")
    policy = given.get("config") if isinstance(given, dict) else None
    name = policy.get("name") if isinstance(policy, dict) else given
    return set[str]({name} if isinstance(name, str) else ()).union(*map(_policies, value.values()))
