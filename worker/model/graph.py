"""A file's configuration as a graph: every call of every layer once, in an order in which it can be computed.

Sequential and functional models, nested in one another, of Keras 2 (`inbound_nodes` as lists) and of Keras 3 (as calls
with arguments). A layer that is called twice has two places, so that each keeps a state of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from worker.errors import ModelNotStreamable
from worker.model.calls import (
    LAYERS_MAX,
    Key,
    Reference,
    are_indices,
    attention_call,
    check_outputs,
    checked_keywords,
    masks,
    tensors,
)
from worker.model.files.reading import ModelFile
from worker.model.files.weights import WAY_OUT
from worker.model.inputs import IDS_MAX, ModelInput, inputs_of, takes_whole_numbers
from worker.model.rules.constants import constant_side
from worker.model.rules.context import is_whole, shown

CONNECTIONS_MAX = 10_000
"""Of all calls of one model."""
NAME_CHARACTERS_MAX = 200
MODEL_CLASSES = ("Sequential", "Functional")
INPUT = 0
"""The number of the value that is the sample."""

MASK_PARTS = ("Any", "LogicalOr", "ExpandDims", "Concatenate")
"""Operations by which Keras 3 puts masks together: a step counts where any of the parts says so."""
FOREIGN = (-1, 0.0)
"""Of a mask that does not come from looking for a number."""
Origin = tuple[int, float]
"""The number of the value that a mask is of, and the number that it looks for in it."""


@dataclass(slots=True)
class Place:
    """One call of one layer. `path` finds its weights (`outer/inner`); `inputs` are numbers of values.

    The value of `Graph.places[i]` has the number i + 1. `arguments` are what else an operation was called with; `mask`
    is what makes up the mask that the file says it is called with, see masks.py. An
    operation is a function of Keras 3 (`x + y`, `ops.mean`), which knows nothing of masks.
    """

    path: str
    name: str
    class_name: str
    config: dict[str, Any]
    inputs: tuple[int, ...]
    arguments: list[Any] = field(default_factory=list)
    is_operation: bool = False
    mask: frozenset[Origin] | None = None


@dataclass(slots=True)
class Graph:
    """`outputs` are numbers of values."""

    name: str
    inputs: tuple[ModelInput, ...]
    timesteps: int | None
    places: list[Place]
    outputs: tuple[int, ...]


def read_graph(file: ModelFile) -> Graph:
    """Of several inputs each has a place, with the sample as its input. Raises ModelNotStreamable for what is no graph
    of layers on sequences of features."""
    class_name = file.configuration.get("class_name")
    if class_name not in MODEL_CLASSES:
        raise ModelNotStreamable(
            f"{file.path} is a model of class {shown(class_name)}, neither Sequential nor Functional",
            "build it as keras.Sequential or keras.Model(inputs, outputs); subclassed models hold code",
        )
    reader = _Reader(file)
    shapes = reader.input_shapes(file.configuration)
    given = [INPUT]
    if len(shapes) > 1:
        reader.places.extend(Place(name, name, "InputLayer", {}, (INPUT,)) for name, _ in shapes)
        given = list(range(1, len(shapes) + 1))
    outputs = reader.model(file.configuration, "", given)
    originals = reader.places[: len(shapes)] if len(shapes) > 1 else []
    places, outputs = _reachable(reader.places, outputs)
    numbers = {id(place): number for number, place in enumerate(places, 1)}
    ids = _ids(places, [numbers.get(id(place), -1) for place in originals] or given)
    reader.check_whole_numbers({given[at] for at in ids})
    inputs, timesteps = inputs_of(str(file.path), shapes, ids)
    for place, each in zip(originals, inputs, strict=False):
        place.config = _configuration(each)
    return Graph(str(_inner(file.configuration).get("name") or "model"), inputs, timesteps, places, tuple(outputs))


def stated_shapes(file: ModelFile) -> list[tuple[str, Any]]:
    """Name and shape of each input as the file has them, None where it does not say."""
    return (
        _Reader(file).input_shapes(file.configuration) if file.configuration.get("class_name") in MODEL_CLASSES else []
    )


class _Reader:
    """Collects the places of a model and of those nested in it."""

    def __init__(self, file: ModelFile) -> None:
        self.places: list[Place] = []
        self._file = file
        self._calls: dict[str, int] = {}
        self._models = 0
        self._whole: list[tuple[str, int]] = []

    def model(self, configuration: dict[str, Any], above: str, given: list[int]) -> list[int]:
        """The values that a call of a model with the values `given` returns."""
        self._models += 1
        if self._models > LAYERS_MAX:
            raise self._refused(f"it calls nested models more than {LAYERS_MAX} times")
        inner = _inner(configuration)
        if not str(inner.get("name")).isprintable():
            raise self._refused(f"it has the name {shown(inner['name'])}")
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
        # Names are printed, and a terminal acts on control characters.
        sound = isinstance(name, str) and 1 <= len(name) <= NAME_CHARACTERS_MAX and name.isprintable()
        if not sound or len(class_name) > NAME_CHARACTERS_MAX:
            raise self._refused(f"layer {number} has the name {shown(name)}")
        return {**layer, "config": {**config, "name": name, **constant_side(layer.get("inbound_nodes"))}}

    def _sequential(self, entries: list[dict[str, Any]], above: str, given: list[int]) -> list[int]:
        if len(given) != 1:
            raise self._refused(f"the Sequential {above[:60]!r} is called with {len(given)} values")
        values = given
        for entry in entries:
            if entry["class_name"] != "InputLayer":
                values = self._call(entry, above, values, [])
            elif takes_whole_numbers(entry["config"]):
                self._whole.append((entry["config"]["name"], given[0]))
        return values

    def check_whole_numbers(self, ids: set[int]) -> None:
        """Raises ModelNotStreamable for an input that Keras makes whole numbers of, where these are not only `ids`."""
        for name, number in self._whole:
            if number not in ids:
                raise ModelNotStreamable(
                    f"{self._file.path}: the input {name[:60]!r} takes whole numbers, and Keras cuts off all others",
                    "build the model with an input of float32 and load the weights there",
                )

    def _functional(
        self, inner: dict[str, Any], entries: list[dict[str, Any]], above: str, given: list[int]
    ) -> list[int]:
        known: dict[Key, list[int]] = {}
        whole = {each["config"]["name"] for each in entries if takes_whole_numbers(each["config"])}
        names = [name for name, _, _ in self._references(inner.get("input_layers"))]
        if len(names) != len(given):
            raise self._refused(f"{above[:60]!r} has {len(names)} inputs and is called with {len(given)}")
        for name, value in zip(names, given, strict=True):
            known[name, 0] = [value]
            self._whole += [(name, value)] * (name in whole)
        calls = []
        for entry in entries:
            if entry["class_name"] == "InputLayer":
                continue
            nodes = entry.get("inbound_nodes")
            for number, node in enumerate(nodes if isinstance(nodes, list) else []):
                called, call = attention_call(entry, node)
                calls.append((called, number, *self._arguments(called, call)))
        self._compute(calls, known, above)
        # Keras 3 counts the calls of a nested model from 1 here and from 0 elsewhere, as its own graph is call 0.
        nested = {each["config"]["name"] for each in entries if each["class_name"] == "Functional"}
        outputs = []
        for name, node, tensor in self._references(inner.get("output_layers")):
            from_1 = self._file.keras_major >= 3 and name in nested and node > 0
            values = known.get((name, node - 1 if from_1 else node), [])
            check_outputs(self._file.path, [(name, node - 1 if from_1 else node, tensor)], known)
            if not tensor < len(values):
                raise self._refused(f"the output {name[:60]!r} is computed by no layer")
            outputs.append(values[tensor])
        return outputs

    def _compute(self, calls: list[Any], known: dict[Key, list[int]], above: str) -> None:
        """Place the calls whose inputs are known until none is left. Raises ModelNotStreamable for a cycle."""
        if len(calls) > LAYERS_MAX:
            raise self._refused(f"it calls layers more than {LAYERS_MAX} times")
        if sum(len(call[2]) + len(call[4]) for call in calls) > CONNECTIONS_MAX:
            raise self._refused(f"it connects layers more than {CONNECTIONS_MAX} times")
        while calls:
            left = []
            for call in calls:
                entry, number, references, others, mask = call
                if all(tensor < len(known.get((name, node), [])) for name, node, tensor in [*references, *mask]):
                    values = [known[name, node][tensor] for name, node, tensor in references]
                    masks = [known[name, node][tensor] for name, node, tensor in mask]
                    known[entry["config"]["name"], number] = self._call(entry, above, values, others, masks)
                else:
                    left.append(call)
            if len(left) == len(calls):
                check_outputs(self._file.path, [each for call in left for each in call[2]], known)
                raise self._refused(f"layer {left[0][0]['config']['name'][:60]!r} depends on itself or on nothing")
            calls = left

    def _call(
        self, entry: dict[str, Any], above: str, values: list[int], arguments: list[Any], masks: Sequence[int] = ()
    ) -> list[int]:
        name = entry["config"]["name"]
        path = f"{above}/{name}" if above else name
        if entry["class_name"] in MODEL_CLASSES:
            return self.model(entry, path, values)
        if len(self.places) >= LAYERS_MAX:
            raise self._refused(f"it calls layers more than {LAYERS_MAX} times")
        self._calls[path] = self._calls.get(path, 0) + 1
        again = f"#{self._calls[path]}" if self._calls[path] > 1 else ""
        place = Place(path, path + again, entry["class_name"], dict(entry["config"]), tuple(values), arguments)
        place.is_operation = self._is_operation(entry)
        place.mask = self._origins(masks) if masks else None
        self.places.append(place)
        return [len(self.places)]

    def _is_operation(self, entry: dict[str, Any]) -> bool:
        """Whether an entry of a functional model is a function. HDF5 files have no module, but say what is trainable of
        all layers except one."""
        if entry.get("module") is None:
            is_layer = "trainable" in entry["config"] or entry["class_name"] == "SpatialDropout1D"
            return self._file.keras_major >= 3 and "inbound_nodes" in entry and not is_layer
        return str(entry["module"]).startswith(("keras.src.ops", "keras.ops", "keras.src.activations"))

    def _origins(self, masks: Sequence[int]) -> frozenset[Origin]:
        """What makes up a mask that Keras 3 saved as operations; nothing where every step counts."""
        origins: set[Origin] = set()
        left, seen = list(masks), set(masks)
        while left:
            number = left.pop()
            place = self.places[number - 1] if number != INPUT else None
            if place is None or not place.is_operation:
                origins.add(FOREIGN)
            elif place.class_name == "NotEqual" and len(place.inputs) == 1 and _is_number(place.arguments):
                origins.add((place.inputs[0], float(np.float32(place.arguments[0]))))
            elif place.class_name == "OnesLike":
                return frozenset()
            elif place.class_name in MASK_PARTS:
                left.extend(set(place.inputs) - seen)
                seen.update(place.inputs)
            elif place.class_name != "ZerosLike":
                origins.add(FOREIGN)
        return frozenset(origins)

    def _arguments(self, entry: dict[str, Any], node: Any) -> tuple[list[Reference], list[Any], list[Reference]]:
        """(the tensors of a call, its other positional arguments, its mask)."""
        name = entry["config"]["name"]
        if isinstance(node, list):
            references = self._references(node)
            found = [node] if references and isinstance(node[0], str) else node
            for each in found:
                checked_keywords(entry, each[3] if len(each) > 3 else None, self._file.keras_major)
            return references, [], []
        arguments = node.get("args") if isinstance(node, dict) else None
        if not isinstance(arguments, list):
            raise self._refused(f"a call of layer {name[:60]!r} has no arguments")
        keywords = checked_keywords(entry, node.get("kwargs"), self._file.keras_major)
        references = list(tensors(arguments))
        return references, [each for each in arguments if not list(tensors([each]))], masks(keywords.get("mask"))

    def _references(self, value: Any) -> list[Reference]:
        """`[name, node, tensor]`, or a list of these, or a dictionary, of which Keras sorts the keys."""
        if isinstance(value, dict):
            value = [value[key] for key in sorted(value)]
        single = isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str)
        found = [value] if single else value
        if not isinstance(found, list) or not all(
            isinstance(each, list) and len(each) >= 3 and isinstance(each[0], str) and are_indices(each[1:3])
            for each in found
        ):
            raise self._refused("it does not say how its layers are connected")
        return [(each[0], each[1], each[2]) for each in found]

    def input_shapes(self, configuration: dict[str, Any]) -> list[tuple[str, Any]]:
        """Name and shape of each of a model's inputs, in the order in which Keras takes them."""
        inner = _inner(configuration)
        layers = self._layers(inner)
        if configuration.get("class_name") == "Sequential":
            return [("input", self._shape(self._entry(0, layers[0])) or _built_shape(configuration))]
        entries = [self._entry(number, layer) for number, layer in enumerate(layers)]
        shapes = {each["config"]["name"]: self._shape(each) for each in entries if each["class_name"] == "InputLayer"}
        names = [name for name, _, _ in self._references(inner.get("input_layers"))]
        built = _built_shape(configuration) if len(names) == 1 else None
        return [(name, shapes.get(name) or built) for name in names]

    def _shape(self, entry: dict[str, Any]) -> Any:
        """What the first layer of a model says of its input; a model within says it of its own first layer."""
        shape = entry["config"].get("batch_shape") or entry["config"].get("batch_input_shape")
        inner = entry["config"].get("layers")
        if shape is None and entry["class_name"] in MODEL_CLASSES and isinstance(inner, list) and inner:
            return self._shape(self._entry(0, inner[0]))
        return shape

    def _refused(self, what: str) -> ModelNotStreamable:
        return ModelNotStreamable(f"{self._file.path}: {what}", WAY_OUT)


def _ids(places: Sequence[Place], inputs: Sequence[int]) -> dict[int, int]:
    """How many ids there are, of each input that only Embedding layers take; see `inputs_of`."""
    takers: dict[int, list[Place]] = {}
    for place in places:
        for number in place.inputs:
            takers.setdefault(number, []).append(place)
    found = {}
    for at, number in enumerate(inputs):
        here = takers.get(number, [])
        if here and all(place.class_name == "Embedding" for place in here):
            known = [place.config.get("input_dim") for place in here]
            found[at] = min([int(each or 1) for each in known if is_whole(each, IDS_MAX)], default=1)
    return found


def _configuration(given: ModelInput) -> dict[str, Any]:
    config = {"name": given.name, "first": given.first, "width": given.width, "is_static": given.is_static}
    return config if given.shape is None else config | {"shape": given.shape}


def _is_number(values: list[Any]) -> bool:
    return len(values) == 1 and type(values[0]) in (int, float) and abs(values[0]) < 3e38


def _inner(configuration: dict[str, Any]) -> dict[str, Any]:
    """The configuration inside; Keras before 2.2.3 stored the bare list of layers."""
    config = configuration.get("config")
    return config if isinstance(config, dict) else {"layers": config}


def _built_shape(configuration: dict[str, Any]) -> Any:
    build = configuration.get("build_config")
    return build.get("input_shape") if isinstance(build, dict) else None


def _reachable(places: list[Place], outputs: list[int]) -> tuple[list[Place], list[int]]:
    """Only what the outputs depend on, numbered anew."""
    needed = set(outputs)
    for number in range(len(places), 0, -1):
        if number in needed:
            needed.update(places[number - 1].inputs)
    kept = [number for number in range(1, len(places) + 1) if number in needed]
    renumbered = {INPUT: INPUT} | {number: at for at, number in enumerate(kept, 1)}
    for number in kept:
        place = places[number - 1]
        place.inputs = tuple(renumbered[each] for each in place.inputs)
        if place.mask:
            place.mask = frozenset((renumbered.get(each, FOREIGN[0]), sought) for each, sought in place.mask)
    return [places[number - 1] for number in kept], [renumbered[each] for each in outputs]
