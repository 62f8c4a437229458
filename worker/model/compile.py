"""A file's graph to a step program, by interpreting each layer on the kind of value that reaches it.

Four kinds: `sequence` (a value at each step), `last` (one value of the sequence, as a recurrent layer's last output
or an average, which stepped is that of the prefix; or a static input), `flat` (a sequence flattened, one slice a step)
and `end` (what follows a sum over all steps: exact at step T). Those of together.py are for the layer after to finish.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from worker.errors import ModelNotStreamable
from worker.model.calls import KERAS_2_OPERATORS, KERAS_2_OPERATORS_REASON, KERAS_2_OPERATORS_WAY_OUT, WAYS_OUT
from worker.model.files.keras_zip import SHARED_WAY_OUT
from worker.model.files.legacy import is_custom
from worker.model.files.reading import ModelFile
from worker.model.files.weights import Array
from worker.model.fingerprint import essential, fingerprint_of
from worker.model.graph import INPUT, Graph, Origin, Place, read_graph
from worker.model.heads import could_be_buffered, heads_of
from worker.model.masks import check_mask, masks_of, passes_mask
from worker.model.precision import precision_of
from worker.model.program import ALWAYS, Node, StepProgram, Wiring
from worker.model.rules.constants import with_constant
from worker.model.rules.context import OR_BUFFER, Layer
from worker.model.rules.operators import OPERATORS
from worker.model.rules.positions import at_each_position
from worker.model.rules.table import (
    FLATTENING,
    OF_A_GRID,
    ONLY_KERAS,
    OPERATIONS,
    POSITION_WISE,
    REASONS,
    ROW_WISE,
    RULES,
    SEVERAL_INPUTS,
    SHAPED,
)
from worker.model.schedule import Schedule
from worker.model.stateful import check_calls, check_one_step_a_call, is_stateful
from worker.model.together import NEXT, PADDED, check_alike, finished, unfinished
from worker.model.value import Value

RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM1D", "ConvLSTM2D")
STATE_FLOATS_MAX = 1 << 20
"""Of one stream: 4 MiB."""


def compile_model(file: ModelFile, timesteps: int | None = None) -> StepProgram:
    """Raises ModelNotStreamable naming the layer, the reason and the way out."""
    graph = read_graph(file)
    stateful = is_stateful(file.configuration)
    if stateful:
        check_calls(graph)
        if graph.timesteps == 1:
            check_one_step_a_call(graph)
            graph.timesteps = None
    compiler = _Compiler(file, graph, graph.timesteps or timesteps)
    try:
        program = compiler.program()
        file.check_used()
        return program
    except ModelNotStreamable as error:
        if (could_be_buffered(graph) and not stateful and _loads(file, graph)) or not error.hint.endswith(OR_BUFFER):
            raise
        raise ModelNotStreamable(error.message, error.hint.removesuffix(OR_BUFFER)) from error


def _loads(file: ModelFile, graph: Graph) -> bool:
    """Whether Keras loads the file: it finds no operators in HDF5 files, which do not say where classes come from."""
    return "module" in file.configuration or not any(place.is_operation for place in graph.places)


class _Compiler:
    def __init__(self, file: ModelFile, graph: Graph, steps: int | None) -> None:
        self._file = file
        self._graph = graph
        self._steps = steps
        self._features = sum(each.width for each in graph.inputs)
        self._nodes: list[Node] = []
        self._wiring: list[Wiring] = []
        self._used: list[Array] = []
        shape = graph.inputs[0].shape if len(graph.inputs) == 1 else None
        self._values: dict[int, Value] = {INPUT: Value(INPUT, self._features, "sequence", shape=shape)}
        self._origins: dict[int, Origin] = {}
        self._heads = heads_of(graph)
        self._logits: dict[int, Value] = {}
        """Of the heads whose value other layers take."""

    def program(self) -> StepProgram:
        """Place after place, then the whole."""
        for number, place in enumerate(self._graph.places, 1):
            self._values[number] = self._placed(number, place)
            if number in self._heads.taken:
                self._logits[number] = self._values[number]
                self._values[number] = self._activated(place, self._logits[number], self._heads.places[number])
        heads = zip(self._heads.outputs, self._graph.outputs, strict=True)
        outputs = [self._logits.get(head, self._values[output]) for (head, _), output in heads]
        for output in outputs:
            self._check_end(output)
        if {output.kind for output in outputs} >= {"sequence", "end"}:
            raise ModelNotStreamable(
                f"{self._file.path} gives one output per step and another that is known at the last step only",
                "serve the two as models of their own",
            )
        exact_from = max(output.exact_from for output in outputs)
        if self._steps is not None and exact_from > self._steps:
            raise ModelNotStreamable(
                f"{self._file.path} has its first output at step {exact_from}, and its sequences end at step "
                f"{self._steps}",
                "set sequence.length, or --timesteps of `lstm-worker check`, to what it was trained with",
            )
        program = StepProgram(
            name=self._graph.name,
            features=self._features,
            inputs=self._graph.inputs,
            timesteps=self._steps,
            nodes=tuple(self._nodes),
            activations=[name for _, name in self._heads.outputs],
            exactness="end" if any(output.kind == "end" for output in outputs) else "prefix",
            fingerprint=fingerprint_of(self._graph, self._steps, self._file.keras_major, self._used),
            wiring=self._wiring,
            output_values=[output.number for output in outputs],
            exact_from=exact_from,
            computed_from=1 if any(output.kind == "end" for output in outputs) else None,
            one_output_per_step=any(output.kind == "sequence" for output in outputs),
            keras_precision=precision_of(self._file.configuration),
        )
        if program.state_size > STATE_FLOATS_MAX:
            raise ModelNotStreamable(
                f"{self._file.path} needs {program.state_size} floats of state for each stream, {STATE_FLOATS_MAX} are "
                "allowed",
                "train it with fewer units or on fewer steps",
            )
        return program

    def _placed(self, number: int, place: Place) -> Value:
        inputs = [self._values[each] for each in place.inputs]
        if place.is_operation:
            inputs = [replace(each, masks=frozenset()) for each in inputs]
        layer = self._layer(place, inputs)
        if not inputs:
            raise layer.refused("it is called with nothing", "call it with one value")
        _check_shapes(layer, inputs)
        value = unfinished(layer, inputs)
        if value is not None:
            return value
        layer.weights = self._weights(place)
        if number in self._heads.places and layer.class_name == "Dense":
            # Logits and outputs are published apart, so the program stops before the head's activation.
            layer.config["activation"] = "linear"
        value = finished(layer, inputs, self._steps, self._added)
        if value is not None:
            self._used.extend(layer.weights)
            return value
        if layer.class_name in FLATTENING:
            return self._flattened(layer, inputs[0])
        value = self._by_rule(layer, inputs, number in self._heads.places)
        if layer.class_name in ("Masking", "Embedding") and value.masks:
            self._origins[value.number] = (place.inputs[0], self._nodes[-1].mask_value or 0.0)
        return value

    def _by_rule(self, layer: Layer, inputs: list[Value], is_head: bool) -> Value:
        rule = RULES.get(layer.class_name) or (OPERATORS.get(layer.class_name) if layer.is_operation else None)
        if rule is None:
            way_out = (
                f"train it without this layer{OR_BUFFER}"
                if layer.class_name in REASONS
                else f"the layers that can be stepped are in docs/models.md{OR_BUFFER * _is_of_keras(layer)}"
            )
            if layer.class_name == "Lambda":
                way_out = "build the model from Keras' own layers"
            if layer.class_name in KERAS_2_OPERATORS:
                raise layer.refused(KERAS_2_OPERATORS_REASON, KERAS_2_OPERATORS_WAY_OUT)
            raise layer.refused(REASONS.get(layer.class_name, "this class of layer is not known"), way_out)
        if len(inputs) != 1 and layer.class_name in RECURRENT:
            raise layer.refused("it is called with an initial state", WAYS_OUT["initial_state"])
        if len(inputs) != 1 and layer.class_name not in SEVERAL_INPUTS:
            raise layer.refused(f"it is called with {len(inputs)} values", "call it with one")
        if layer.widths:
            check_alike(layer, inputs)
        if is_head and layer.class_name != "Dense":
            check_mask(layer, masks_of(layer, inputs), self._origins)
            return inputs[0]
        is_at_positions = layer.shape is not None and layer.class_name in POSITION_WISE
        node = at_each_position(layer, layer.shape or (), rule) if is_at_positions else rule(layer)
        self._used.extend(layer.weights)
        return self._added(layer, node, inputs)

    def _activated(self, place: Place, logits: Value, name: str) -> Value:
        """What other layers take of a head, of which the logits are published."""
        activation = replace(place, class_name="Activation", config={"name": place.name, "activation": name}, mask=None)
        return self._by_rule(self._layer(activation, [logits]), [logits], is_head=False)

    def _weights(self, place: Place) -> list[Array]:
        """Of a layer that is in two models the file may have them in one of the two only."""
        found = self._file.weights(place.path, place.class_name, 0)
        if found:
            return found
        for other in self._graph.places:
            nested = "/" in other.path + place.path
            if nested and other.path != place.path and _is_same_layer(other, place):
                shared = self._file.weights(other.path, other.class_name, 0)
                if found and shared and not _are_equal(found, shared):
                    raise ModelNotStreamable(
                        f"{self._file.path}: layer {place.name!r} is in two models, and two others are called the same",
                        SHARED_WAY_OUT,
                    )
                found = found or shared
        return found

    def _layer(self, place: Place, inputs: list[Value]) -> Layer:
        first = inputs[0] if inputs else self._values[INPUT]
        kinds = {each.kind for each in inputs}
        widths = tuple(each.width for each in inputs)
        config = {**place.config, "name": place.name}
        class_name = place.class_name
        if class_name in OPERATIONS and place.is_operation:
            class_name, more = OPERATIONS[class_name]
            config |= more
        if class_name == "GetItem" and place.arguments:
            config["keys"] = place.arguments
        layer = Layer(
            name=place.name,
            class_name=class_name,
            config=config,
            weights=[],
            width=first.width,
            kind="sequence" if first.kind == PADDED else "end" if kinds == {"last", "end"} else first.kind,
            padding=first.padding,
            timesteps=first.schedule.length(self._steps),
            keras_major=self._file.keras_major,
            widths=widths if len(widths) > 1 else (),
            waits=not first.schedule.always or bool(first.masks),
            is_static=bool(inputs) and all(each.is_static for each in inputs),
            is_distributed=class_name == "TimeDistributed",
            shape=first.shape,
            is_operation=place.is_operation,
            given_mask=place.mask,
        )
        if place.arguments and class_name != "GetItem":
            layer = with_constant(layer, place.arguments)
        if class_name == "TimeDistributed":
            layer = _distributed(layer)
        return layer

    def _flattened(self, layer: Layer, value: Value) -> Value:
        layer.check_channels_last()
        over_time = value.kind == "sequence" and not layer.is_distributed
        if layer.class_name == "Reshape":
            target = layer.config.get("target_shape")
            if over_time and value.shape is None and target in _as_it_is(layer):
                return replace(value, masks=frozenset())
            together = ((layer.timesteps or 0) if over_time or value.kind == "flat" else 1) * layer.width
            if target not in ([-1], [together]):
                raise layer.refused("it gives the steps another shape", f"use Flatten{OR_BUFFER}")
        if layer.is_distributed:
            return replace(value, shape=None)
        return replace(value, kind="flat", masks=frozenset(), shape=None) if over_time else replace(value, shape=None)

    def _added(self, layer: Layer, node: Node, inputs: list[Value]) -> Value:
        value = inputs[0]
        masks = masks_of(layer, inputs)
        check_mask(layer, masks, self._origins)
        heeded = tuple(sorted(masks)) if node.whole_masked is not None else ()
        produces = value.schedule.then(node.schedule.first, node.schedule.every)
        exact_from = max(*(each.exact_from for each in inputs), produces.first)
        summary = node.kind in ("last", "end")
        self._nodes.append(_described(node, exact_from, produces, self._steps))
        reached = tuple(each.number for each in inputs)
        in_all = layer.keras_major < 3 and bool(heeded)
        parts = tuple(tuple(sorted(each.masks)) for each in inputs) if node.merged is not None else ()
        self._wiring.append(Wiring(reached, value.schedule, produces, heeded, in_all, parts if any(parts) else ()))
        number = len(self._nodes)
        if node.mask_value is not None:
            masks = frozenset([number])
        elif not passes_mask(layer, node.kind, bool(heeded)):
            masks = frozenset()
        return Value(
            number,
            node.width,
            node.kind,
            # What follows a summary works on it at every step, whether it is new or not.
            ALWAYS if summary else produces,
            exact_from,
            masks,
            is_static=node.kind == "last" and (layer.is_static or layer.class_name == "InputLayer"),
            shape=node.shape,
        )

    def _check_end(self, output: Value) -> None:
        if output.kind in NEXT:
            reason, way_out = NEXT[output.kind]
            raise ModelNotStreamable(f"{self._file.path} ends too early: {reason}", way_out)
        if output.shape is not None:
            flattening = "TimeDistributed(Flatten())" if output.kind == "sequence" else "Flatten"
            raise ModelNotStreamable(
                f"{self._file.path} gives more than one row of numbers", f"end it with {flattening} and Dense"
            )
        if output.kind == "flat":
            raise ModelNotStreamable(f"{self._file.path} ends with Flatten", "a classifier ends with Dense")
        if output.number == INPUT:
            raise ModelNotStreamable(f"{self._file.path} gives its samples back", "a classifier ends with Dense")
        if output.kind == "sequence" and output.schedule.every > 1:
            raise ModelNotStreamable(
                f"{self._file.path} gives one output every {output.schedule.every} steps",
                "train it without strides for one at every step, or end it with return_sequences=False",
            )


def _described(node: Node, exact_from: int, produces: Schedule, steps: int | None) -> Node:
    """With the steps of the model's input at which it is exact; a rule knows only those of the values that reach it."""
    if node.kind == "end":
        return replace(node, exact=f"step {steps}")
    if exact_from == 1 and produces.every == 1:
        return node
    exact = f"from step {exact_from}" + (f", every {produces.every}" if produces.every > 1 else "")
    return replace(node, exact=exact)


def _is_same_layer(one: Place, other: Place) -> bool:
    """Whether two places of different models may be one layer that is in both."""
    same_name = one.config.get("name") == other.config.get("name")
    return same_name and one.class_name == other.class_name and essential(one.config) == essential(other.config)


def _are_equal(one: list[Array], other: list[Array]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def _check_shapes(layer: Layer, inputs: list[Value]) -> None:
    """Raises ModelNotStreamable where a step that is not one row of features meets a layer that works on such rows."""
    for each in inputs:
        if each.shape is not None and layer.class_name not in SHAPED:
            shape = " x ".join(map(str, each.shape))
            way_out = f"put Flatten or TimeDistributed(Flatten()) before it{OR_BUFFER}"
            raise layer.refused(f"the steps that reach it have the shape {shape}", way_out)


def _is_of_keras(layer: Layer) -> bool:
    """Of a class that is not known; Keras loads none of a user's own in its safe mode."""
    return layer.is_operation or layer.class_name in ONLY_KERAS


def _as_it_is(layer: Layer) -> tuple[list[int | None], ...]:
    """The shapes that a sequence has."""
    return [layer.timesteps, layer.width], [-1, layer.width], [layer.timesteps, -1]


def _distributed(layer: Layer) -> Layer:
    """`TimeDistributed` of a layer that works on each step by itself is that layer."""
    inner = layer.config.get("layer")
    class_name = inner.get("class_name") if isinstance(inner, dict) else None
    config = inner.get("config") if isinstance(inner, dict) else None
    served = class_name in (*ROW_WISE, *FLATTENING) or (layer.shape is not None and class_name in OF_A_GRID)
    if not served or not isinstance(class_name, str) or not isinstance(config, dict):
        runs = isinstance(inner, dict) and not is_custom(inner) and class_name in {*RULES, *REASONS, *ONLY_KERAS}
        way_out = f"distribute a Dense layer{OR_BUFFER * (runs and class_name != 'Lambda')}"
        raise layer.refused("what it distributes does not work on single steps", way_out)
    return replace(layer, class_name=class_name, config={**config, "name": layer.name})
