"""Where a file keeps each layer: the way to it through nested models, and its number among the layers of its class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

LAYERS_MAX = 4096
"""Of a whole file, nested models included."""


@dataclass(frozen=True, slots=True)
class Step:
    """One level of the way: `number` counts the `total` layers of `class_name` in their model, from 0.

    `number_new` counts those of `total_new` alone that the configuration does not say are in an earlier model too; None
    for one that is.
    """

    name: str
    class_name: str
    number: int
    total: int = 0
    number_new: int | None = None
    total_new: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """One of several stacked cells."""

    name: str
    class_name: str
    is_trained: bool


@dataclass(frozen=True, slots=True)
class Place:
    """The way from the outermost model to a layer; `cells` are its stacked cells, in order.

    `within` are the names of the layer or cells that it holds; `lora_alpha` divided by their rank is the scale of
    low-rank updates of its weights, 1 where it does not say.
    """

    steps: tuple[Step, ...]
    cells: tuple[Cell, ...] = ()
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
    entries = [
        each for each in inner_layers(model) if isinstance(each, dict) and isinstance(each.get("class_name"), str)
    ]
    known = {(place.steps[-1].name, place.class_name) for place in found.values()}
    for entry, last in zip(entries, _steps(entries, known), strict=True):
        steps = (*above, last)
        config = entry.get("config")
        place = Place(steps, _cells(config), tuple(_within(config)), _lora_alpha(config))
        full = "/".join(step.name for step in steps)
        if full in found or len(found) >= LAYERS_MAX:
            raise ValueError(f"two layers are called {full[:60]!r}" if full in found else "it has too many layers")
        found[full] = place
        if above:
            inner.append((last.name, place))
        _visit(entry, steps, found, inner)


def _steps(entries: list[dict[str, Any]], known: set[tuple[str, str]]) -> list[Step]:
    """One for each layer of a model; `known` are names and classes of layers of the models before it."""
    numbers, numbers_new, steps = Counter[str](), Counter[str](), []
    for entry in entries:
        class_name = entry["class_name"]
        name = _name(entry, entry.get("config"), class_name)
        is_new = "shared_object_id" not in entry or (name, class_name) not in known
        number_new = numbers_new[class_name] if is_new else None
        steps.append(Step(name, class_name, numbers[class_name], number_new=number_new))
        numbers[class_name] += 1
        numbers_new[class_name] += is_new
    totals = [(numbers[step.class_name], numbers_new[step.class_name]) for step in steps]
    return [replace(step, total=total, total_new=new) for step, (total, new) in zip(steps, totals, strict=True)]


def _name(entry: dict[str, Any], config: Any, class_name: str) -> str:
    name = config.get("name") if isinstance(config, dict) else None
    return str(name or entry.get("name") or class_name)


def _cells(config: Any) -> tuple[Cell, ...]:
    """The cells of `RNN(StackedRNNCells([...]))`, or of `RNN([...])`."""
    cell = config.get("cell") if isinstance(config, dict) else None
    inside = cell.get("config") if isinstance(cell, dict) else None
    cells = inside.get("cells") if isinstance(inside, dict) else None
    return tuple(_cell(each) for each in cells or [] if isinstance(each, dict))


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


def _cell(entry: dict[str, Any]) -> Cell:
    class_name = str(entry.get("class_name"))
    config = entry.get("config")
    is_trained = not isinstance(config, dict) or config.get("trainable") is not False
    return Cell(_name(entry, config, class_name), class_name, is_trained)
