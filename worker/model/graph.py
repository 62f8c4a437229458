"""A file's configuration as a graph: every call of every layer once, in an order in which it can be computed.

Sequential and functional models, nested in one another, of Keras 2 (`inbound_nodes` as lists) and of Keras 3 (as calls
with arguments). A layer that is called twice has two places, so that each keeps a state of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from worker.errors import ModelNotStreamable
from worker.model.files.reading import ModelFile
from worker.model.files.weights import WAY_OUT
from worker.model.rules.context import is_whole, shown
from worker.model.rules.table import ATTENTION

LAYERS_MAX = 1000
NAME_CHARACTERS_MAX = 200
FEATURES_MAX = 1 << 14
TIMESTEPS_MAX = 1 << 20
MODEL_CLASSES = ("Sequential", "Functional")
INPUT = 0
"""The number of the value that is the model's input."""

Key = tuple[str, int]
"""A layer's name and which of its calls."""


@dataclass(slots=True)
class Place:
    """One call of one layer. `path` finds its weights (`outer/inner`); `inputs` are numbers of values.

    The value of `Graph.places[i]` has the number i + 1. `arguments` are what else an operation was called with.
    """

    path: str
    name: str
    class_name: str
    config: dict[str, Any]
    inputs: tuple[int, ...]
    arguments: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Graph:
    """`outputs` are numbers of values, `heads` the names of the layers they come from."""

    name: str
    features: int
    timesteps: int | None
    places: list[Place]
    outputs: tuple[int, ...]


def read_graph(file: ModelFile) -> Graph:
    """Raises ModelNotStreamable for what is no graph of layers on one sequence of features."""
    class_name = file.configuration.get("class_name")
    if class_name not in MODEL_CLASSES:
        raise ModelNotStreamable(
            f"{file.path} is a model of class {shown(class_name)}, neither Sequential nor Functional",
            "build it as keras.Sequential or keras.Model(inputs, outputs); subclassed models hold code",
        )
    reader = _Reader(file)
    outputs = reader.model(file.configuration, "", [INPUT])
    shape = reader.input_shape or _built_shape(file.configuration)
    features, timesteps = _checked_shape(file, shape)
    places, outputs = _reachable(reader.places, outputs)
    return Graph(str(_inner(file.configuration).get("name") or "model"), features, timesteps, places, tuple(outputs))


class _Reader:
    """Collects the places of a model and of those nested in it."""

    def __init__(self, file: ModelFile) -> None:
        self.places: list[Place] = []
        self.input_shape: Any = None
        self._file = file
        self._calls: dict[str, int] = {}

    def model(self, configuration: dict[str, Any], above: str, given: list[int]) -> list[int]:
        """The values that a call of a model with the values `given` returns."""
        inner = _inner(configuration)
        entries = [self._entry(number, layer) for number, layer in enumerate(self._layers(inner))]
        if configuration.get("class_name") == "Sequential":
            return self._sequential(entries, above, given)
        return self._functional(inner, entries, above, given)

    def _layers(self, inner: dict[str, Any]) -> list[Any]:
        layers = inner.get("layers")
        if not isinstance(layers, list) or not 1 <= len(layers) <= LAYERS_MAX:
            raise ModelNotStreamable(f"{self._file.path} has no list of 1 to {LAYERS_MAX} layers", WAY_OUT)
        return layers

    def _entry(self, number: int, layer: Any) -> dict[str, Any]:
        """A layer's entry with a checked class, configuration and name."""
        class_name = layer.get("class_name") if isinstance(layer, dict) else None
        config = layer.get("config") if isinstance(layer, dict) else None
        if not isinstance(class_name, str) or not class_name.isidentifier() or not isinstance(config, dict | list):
            raise self._refused(f"layer {number} has no class or no configuration")
        if isinstance(config, list):
            config = {"layers": config}
        name = config.get("name", layer.get("name", class_name))
        sound = isinstance(name, str) and 1 <= len(name) <= NAME_CHARACTERS_MAX
        if not sound or len(class_name) > NAME_CHARACTERS_MAX:
            raise self._refused(f"layer {number} has the name {shown(name)}")
        return {**layer, "config": {**config, "name": name}}

    def _sequential(self, entries: list[dict[str, Any]], above: str, given: list[int]) -> list[int]:
        if len(given) != 1:
            raise self._refused(f"the Sequential {above[:60]!r} is called with {len(given)} values")
        values = given
        for number, entry in enumerate(entries):
            if not above and number == 0:
                self._note_shape(entry)
            if entry["class_name"] != "InputLayer":
                values = self._call(entry, above, values, [])
        return values

    def _functional(
        self, inner: dict[str, Any], entries: list[dict[str, Any]], above: str, given: list[int]
    ) -> list[int]:
        known: dict[Key, list[int]] = {}
        names = [name for name, _, _ in self._references(inner.get("input_layers"))]
        if len(names) != len(given):
            reason = f"{self._file.path} has {len(names)} inputs" if not above else f"{above[:60]!r} has other inputs"
            raise ModelNotStreamable(reason, "serve a model of one sequence of features")
        for name, value in zip(names, given, strict=True):
            known[name, 0] = [value]
        calls = []
        for entry in entries:
            if entry["class_name"] == "InputLayer":
                if not above:
                    self._note_shape(entry)
                continue
            nodes = entry.get("inbound_nodes")
            for number, node in enumerate(nodes if isinstance(nodes, list) else []):
                called, call = _attention_call(entry, node)
                calls.append((called, number, *self._arguments(called, call)))
        self._compute(calls, known, above)
        outputs = []
        for name, node, tensor in self._references(inner.get("output_layers")):
            values = known.get((name, node), [])
            if not tensor < len(values):
                raise self._refused(f"the output {name[:60]!r} is computed by no layer")
            outputs.append(values[tensor])
        return outputs

    def _compute(self, calls: list[Any], known: dict[Key, list[int]], above: str) -> None:
        """Place the calls whose inputs are known until none is left. Raises ModelNotStreamable for a cycle."""
        if len(calls) > LAYERS_MAX:
            raise self._refused(f"it calls layers more than {LAYERS_MAX} times")
        while calls:
            left = []
            for call in calls:
                entry, number, references, others = call
                if all(tensor < len(known.get((name, node), [])) for name, node, tensor in references):
                    values = [known[name, node][tensor] for name, node, tensor in references]
                    known[entry["config"]["name"], number] = self._call(entry, above, values, others)
                else:
                    left.append(call)
            if len(left) == len(calls):
                raise self._refused(f"layer {left[0][0]['config']['name'][:60]!r} depends on itself or on nothing")
            calls = left

    def _call(self, entry: dict[str, Any], above: str, values: list[int], arguments: list[Any]) -> list[int]:
        name = entry["config"]["name"]
        path = f"{above}/{name}" if above else name
        if entry["class_name"] in MODEL_CLASSES:
            return self.model(entry, path, values)
        if len(self.places) >= LAYERS_MAX:
            raise self._refused(f"it calls layers more than {LAYERS_MAX} times")
        self._calls[path] = self._calls.get(path, 0) + 1
        again = f"#{self._calls[path]}" if self._calls[path] > 1 else ""
        self.places.append(
            Place(path, path + again, entry["class_name"], dict(entry["config"]), tuple(values), arguments)
        )
        return [len(self.places)]

    def _arguments(self, entry: dict[str, Any], node: Any) -> tuple[list[tuple[str, int, int]], list[Any]]:
        """(the tensors of a call, its other positional arguments)."""
        name = entry["config"]["name"]
        if isinstance(node, list):
            return self._references(node), []
        arguments = node.get("args") if isinstance(node, dict) else None
        if not isinstance(arguments, list):
            raise self._refused(f"a call of layer {name[:60]!r} has no arguments")
        used = [key for key, value in (node.get("kwargs") or {}).items() if value is not None and key != "mask"]
        if [key for key in used if key != "training"]:
            raise ModelNotStreamable(
                f"layer {name[:60]!r} ({entry['class_name']}) cannot be stepped: it is called with {used[0][:40]!r}",
                "call it with its input only",
            )
        references = list(_tensors(arguments))
        return references, [each for each in arguments if not list(_tensors([each]))]

    def _references(self, value: Any) -> list[tuple[str, int, int]]:
        """`[name, node, tensor]`, or a list of these."""
        single = isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str)
        found = [value] if single else value
        if not isinstance(found, list) or not all(
            isinstance(each, list) and len(each) >= 3 and isinstance(each[0], str) and _are_indices(each[1:3])
            for each in found
        ):
            raise self._refused("it does not say how its layers are connected")
        return [(each[0], each[1], each[2]) for each in found]

    def _note_shape(self, entry: dict[str, Any]) -> None:
        shape = entry["config"].get("batch_shape") or entry["config"].get("batch_input_shape")
        if shape is None and entry["class_name"] in MODEL_CLASSES:
            inner = entry["config"].get("layers")
            if isinstance(inner, list) and inner:
                self._note_shape(self._entry(0, inner[0]))
            return
        self.input_shape = self.input_shape or shape

    def _refused(self, what: str) -> ModelNotStreamable:
        return ModelNotStreamable(f"{self._file.path}: {what}", WAY_OUT)


def _attention_call(entry: dict[str, Any], node: Any) -> tuple[dict[str, Any], Any]:
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


def _tensors(arguments: Any) -> Iterator[tuple[str, int, int]]:
    """The references to other calls in a call's arguments; nesting is bounded by the JSON's."""
    if isinstance(arguments, list):
        for each in arguments:
            yield from _tensors(each)
    elif isinstance(arguments, dict) and arguments.get("class_name") == "__keras_tensor__":
        config = arguments.get("config")
        history: Any = config.get("keras_history") if isinstance(config, dict) else None
        named = isinstance(history, list) and len(history) == 3 and isinstance(history[0], str)
        if named and _are_indices(history[1:]):
            yield history[0], history[1], history[2]


def _are_indices(values: list[Any]) -> bool:
    return all(type(each) is int and 0 <= each < LAYERS_MAX for each in values)


def _inner(configuration: dict[str, Any]) -> dict[str, Any]:
    """The configuration inside; Keras before 2.2.3 stored the bare list of layers."""
    config = configuration.get("config")
    return config if isinstance(config, dict) else {"layers": config}


def _built_shape(configuration: dict[str, Any]) -> Any:
    build = configuration.get("build_config")
    return build.get("input_shape") if isinstance(build, dict) else None


def _checked_shape(file: ModelFile, shape: Any) -> tuple[int, int | None]:
    if isinstance(shape, list) and len(shape) == 1 and isinstance(shape[0], list):
        shape = shape[0]
    if not isinstance(shape, list) or len(shape) != 3:
        raise ModelNotStreamable(
            f"{file.path} takes input of {len(shape) if isinstance(shape, list) else 'unknown'} dimensions, "
            "not (batch, timesteps, features)",
            "serve a sequence model, saved after it was built",
        )
    _, steps, features = shape
    if not is_whole(features, FEATURES_MAX) or not (steps is None or is_whole(steps, TIMESTEPS_MAX)):
        raise ModelNotStreamable(
            f"{file.path} takes {shown(steps)} timesteps of {shown(features)} features",
            f"serve a model of 1 to {FEATURES_MAX} features and at most {TIMESTEPS_MAX} timesteps",
        )
    return features, steps


def _reachable(places: list[Place], outputs: list[int]) -> tuple[list[Place], list[int]]:
    """Only what the outputs depend on, numbered anew."""
    needed = set(outputs)
    for number in range(len(places), 0, -1):
        if number in needed:
            needed.update(places[number - 1].inputs)
    kept = [number for number in range(1, len(places) + 1) if number in needed]
    renumbered = {INPUT: INPUT} | {number: at for at, number in enumerate(kept, 1)}
    for number in kept:
        places[number - 1].inputs = tuple(renumbered[each] for each in places[number - 1].inputs)
    return [places[number - 1] for number in kept], [renumbered[each] for each in outputs]
