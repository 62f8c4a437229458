"""Where a file keeps each layer: the way to it through nested models, and its number among the layers of its class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
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
class Place:
    """The way from the outermost model to a layer; `cells` are the classes of stacked cells, in order.

    `within` are the names of the layer or cells that it holds; `lora_alpha` divided by their rank is the scale of
    low-rank updates of its weights, 1 where it does not say.
    """

    steps: tuple[Step, ...]
    cells: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    lora_alpha: float | None = None

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
        place = Place(steps, _cells(config), tuple(_within(config)), _lora_alpha(config))
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


def _cells(config: Any) -> tuple[str, ...]:
    """The classes of `RNN(StackedRNNCells([...]))`, or of `RNN([...])`."""
    cell = config.get("cell") if isinstance(config, dict) else None
    inside = cell.get("config") if isinstance(cell, dict) else None
    cells = inside.get("cells") if isinstance(inside, dict) else None
    return tuple(str(each.get("class_name")) for each in cells or [] if isinstance(each, dict))


def _within(config: Any) -> Iterator[str]:
    """At any depth: `RNN` holds `StackedRNNCells`, which hold cells. Nesting is bounded by the JSON's."""
    held = [config.get(key) for key in ("layer", "cell")] if isinstance(config, dict) else []
    cells = config.get("cells") if isinstance(config, dict) else None
    for each in [*held, *(cells if isinstance(cells, list) else [])]:
        inner = each.get("config") if isinstance(each, dict) else None
        if isinstance(inner, dict):
            yield str(inner.get("name"))
            yield from _within(inner)


def _lora_alpha(config: Any) -> float | None:
    """Of a layer or of the one that it distributes."""
    inner = config.get("layer") if isinstance(config, dict) else None
    for each in (config, inner.get("config") if isinstance(inner, dict) else None):
        alpha = each.get("lora_alpha") if isinstance(each, dict) else None
        if isinstance(alpha, int | float):
            return alpha
    return None
