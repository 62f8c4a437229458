"""Operators and functions of Keras 3 in a random model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.unit.model.random_model import RandomModel


def piece(start: int | None = None, stop: int | None = None) -> dict[str, Any]:
    """A range, as files have it."""
    return {"class_name": "__slice__", "config": {"start": start, "stop": stop, "step": None}}


def with_constant(model: RandomModel, value: Any, width: int) -> Any:
    """An operator of a value and a constant, in any order."""
    model.parts.add("an operator with a constant")
    constant = model.random.choice((0.5, -2, [0.25 * number - 0.4 for number in range(width)]))
    class_name = model.random.choice(("Add", "Subtract", "Multiply", "Maximum", "Minimum", "TrueDivide"))
    if class_name == "TrueDivide":
        return model.operation(class_name, [value], model.random.choice((3, -0.7)))
    if model.random.random() < 0.5:
        return model.operation(class_name, [value], first=constant)
    return model.operation(class_name, [value], constant)


def function(model: RandomModel, value: Any) -> Any:
    model.parts.add("a function")
    if model.random.random() < 0.6:
        class_name = model.random.choice(("Absolute", "Square", "Sin", "Cos", "Negative", "Celu", "LogSoftmax"))
        return model.operation(class_name, [value])
    if model.random.random() < 0.5:
        return model.operation("Gelu", [value], approximate=model.random.random() < 0.5)
    return model.operation(model.random.choice(("Sqrt", "Rsqrt", "Reciprocal", "Log", "Log1p")), [above(model, value)])


def above(model: RandomModel, value: Any) -> Any:
    """Numbers above a half."""
    return model.operation("Add", [model.operation("Absolute", [value])], 0.5)


def quotient_or_power(model: RandomModel, one: Any, other: Any) -> Any:
    if model.random.random() < 0.5:
        return model.operation("Divide", [one, above(model, other)])
    return model.operation("Power", [above(model, other), model.operation("Tanh", [one])])


def picked_features(model: RandomModel, value: Any, width: int) -> tuple[Any, int]:
    """Some of the features of a sequence, or of one of its steps."""
    model.parts.add("some of the features")
    first = model.random.randrange(width)
    dots = {"class_name": "__ellipsis__", "config": {}}
    return model.operation("GetItem", [value], [dots, piece(first, None)]), width - first
