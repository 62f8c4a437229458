"""Where a file keeps each layer: the way to it through nested models, and its number among the layers of its class."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

LAYERS_MAX = 4096
"""Of a whole file, nested models included."""


@dataclass(frozen=True, slots=True)
class Step:
    """One level of the way: `number` counts the layers of `class_name` in their model, from 0."""

    name: str
    class_name: str
    number: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One of several stacked cells."""

    name: str
    class_name: str
    is_trained: bool


@dataclass(frozen=True, slots=True)
class Place:
    """The way from the outermost model to a layer; `cells` are its stacked cells, in order."""

    steps: tuple[Step, ...]
    cells: tuple[Cell, ...] = ()

    @property
    def class_name(self) -> str:
        """The layer's class as the file names it."""
        return self.steps[-1].class_name


def places_of(configuration: dict[str, Any]) -> dict[str, Place]:
    """Layer name → place. A layer of a nested model is `outer/inner`, and also `inner` where no other is called so.

    Layers without a name go by their class, as in the compiler. Raises ValueError where two layers of one model have
    the same name, or there are more than LAYERS_MAX.
    """
    found: dict[str, Place] = {}
    inner: list[tuple[str, Place]] = []
    _visit(configuration, (), found, inner)
    names = Counter(name for name, _ in inner)
    for name, place in inner:
        if names[name] == 1:
            found.setdefault(name, place)
    return found


def inner_layers(entry: Any) -> list[Any]:
    """The layers of a model or nested model; Keras before 2.2.3 stored the bare list."""
    config = entry.get("config") if isinstance(entry, dict) else None
    layers = config.get("layers") if isinstance(config, dict) else config
    return layers if isinstance(layers, list) else []


def snake_case(class_name: str) -> str:
    """Keras' own rule for group names: SimpleRNN → simple_rnn, LSTM → lstm."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _visit(
    model: dict[str, Any], above: tuple[Step, ...], found: dict[str, Place], inner: list[tuple[str, Place]]
) -> None:
    numbers: Counter[str] = Counter()
    for entry in inner_layers(model):
        class_name = entry.get("class_name") if isinstance(entry, dict) else None
        if not isinstance(class_name, str):
            continue
        config = entry.get("config")
        name = _name(entry, config, class_name)
        steps = (*above, Step(name, class_name, numbers[class_name]))
        numbers[class_name] += 1
        place = Place(steps, _cells(config))
        full = "/".join(step.name for step in steps)
        if full in found or len(found) >= LAYERS_MAX:
            raise ValueError(f"two layers are called {full[:60]!r}" if full in found else "it has too many layers")
        found[full] = place
        if above:
            inner.append((name, place))
        _visit(entry, steps, found, inner)


def _name(entry: dict[str, Any], config: Any, class_name: str) -> str:
    name = config.get("name") if isinstance(config, dict) else None
    return str(name or entry.get("name") or class_name)


def _cells(config: Any) -> tuple[Cell, ...]:
    """The cells of `RNN(StackedRNNCells([...]))`, or of `RNN([...])`."""
    cell = config.get("cell") if isinstance(config, dict) else None
    inside = cell.get("config") if isinstance(cell, dict) else None
    cells = inside.get("cells") if isinstance(inside, dict) else None
    return tuple(_cell(each) for each in cells or [] if isinstance(each, dict))


def _cell(entry: dict[str, Any]) -> Cell:
    class_name = str(entry.get("class_name"))
    config = entry.get("config")
    is_trained = not isinstance(config, dict) or config.get("trainable") is not False
    return Cell(_name(entry, config, class_name), class_name, is_trained)
