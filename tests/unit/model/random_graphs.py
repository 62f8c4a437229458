"""Random functional models as configuration and weights: branches, shared layers, windows, masks, every rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.unit.model import random_operators
from tests.unit.model.random_grid import RandomGrid
from tests.unit.model.random_model import MERGES, TIMESTEPS, RandomModel
from worker.model.program import StepProgram


@dataclass(frozen=True, slots=True)
class RandomGraph:
    """`parts`: what is in it besides the classes of its layers; `alone`: of several outputs each, compiled without the
    others, which leaves its numbers as they are."""

    program: StepProgram
    parts: set[str]
    alone: list[StepProgram]


def random_program(seed: int) -> StepProgram:
    """A model that can be stepped, with sigmoid or softmax heads."""
    return random_graph(RandomModel(seed), 3).program


def random_graph(model: RandomModel, blocks: int) -> RandomGraph:
    """So many parts of some layers each are added to the empty model, and then an end."""
    chance = model.random
    value, width = model.input, model.features
    model.keras_major = chance.choice((2, 3, 3))
    if chance.random() < 0.2:
        model.parts.add("a mask")
        value = model.masking(value)
    static = None
    if chance.random() < 0.45:
        value, width, static = with_another_input(model, value, width)
    if static is None and chance.random() < 0.32:
        value, width, static = with_grids(model, value, width)
    begun = value, width
    for _ in range(blocks):
        kind = chance.random()
        if chance.random() < 0.7:
            value = model.elementwise(value, width)
        if chance.random() < 0.08:
            value, width = random_operators.picked_features(model, value, width)
        if kind < 0.24:
            units = chance.randint(1, 4)
            value, width = model.recurrent(value, width, units), units
        elif kind < 0.42:
            value, width = model.window(value, width, strided=True)
        elif kind < 0.48:
            value = model.fewer_steps(value)
        elif kind < 0.63 and not model.masked and model.steps_of(value):
            value, width = model.causal_attention(value, width)
        elif kind < 0.86:
            value, width = branched(model, value, width)
        elif kind < 0.9:
            shared = model.recurrent(value, width, width)
            value = model.again(shared[0], [shared])
        elif kind < 0.95 and model.steps_of(value) > 1:
            value = model.by_step(value, width)
        else:
            value = model.elementwise(value, width)
    if not model.steps_of(value):
        value, width = begun
    output = end(model, value, width, static)
    alone = [model.program(each) for each in output] if isinstance(output, list) else []
    return RandomGraph(model.program(output), model.parts, alone)


def with_another_input(model: RandomModel, value: Any, width: int) -> tuple[Any, int, Any]:
    """A sequence joined with another one or with a static input at every step, and what is not joined with it yet."""
    chance = model.random
    if chance.random() < 0.4:
        return model.add("Concatenate", [value, model.row_of_id(2)], []), width + 2, None
    is_static = chance.random() < 0.75
    other = model.another_input(2, is_static)
    if is_static and not (model.fixed and chance.random() < 0.7):
        return value, width, (other, 2)
    if is_static:
        dense = model.dense(other, 2, 2, outside=True) if chance.random() < 0.5 else other
        other = model.add("RepeatVector", [dense], [], n=TIMESTEPS)
    elif chance.random() < 0.5:
        other = model.masking(other)
    return model.add("Concatenate", [value, other], []), width + 2, None


def with_grids(model: RandomModel, value: Any, width: int) -> tuple[Any, int, Any]:
    """The same with what convolutions make of an input of grids."""
    grid = RandomGrid(model)
    if model.random.random() < 0.5:
        grid.conv_lstm(every=True)
        grid.at_each_position()
    if model.random.random() < 0.5:
        grid.conv_lstm(every=False)
        grid.at_each_position()
        return value, width, grid.row()
    grid.conv_lstm(every=True)
    row, more = grid.row_of_each_step()
    return model.add("Concatenate", [value, row], []), width + more, None


def end(model: RandomModel, value: Any, width: int, static: Any) -> Any:
    """From a sequence to the head."""
    if static is not None:
        last, more = model.summary(value, width)
        beside, width = static
        return head(model, model.add("Concatenate", [last, beside], []), more + width)
    if model.random.random() < 0.3:
        return one_per_step(model, value, width)
    if model.fixed and model.random.random() < 0.7 and model.steps_of(value):
        return flattened(model, value, width)
    return head(model, *model.summary(value, width))


def one_per_step(model: RandomModel, value: Any, width: int) -> Any:
    """A head at every step, at times beside one of the whole sequence; with strides there is none to be served."""
    if not model.has_every_step(value):
        return head(model, *model.summary(value, width))
    model.parts.add("one output per step")
    if model.random.random() < 0.3:
        units = model.random.randint(1, 3)
        config = {"units": units, "activation": "sigmoid"}
        inner = {"class_name": "Dense", "config": config}
        return model.add("TimeDistributed", [value], [model.array(width, units), model.array(units)], layer=inner)
    if model.random.random() < 0.35:
        return taken(model, value, width, every=model.random.random() < 0.5)
    if model.random.random() < 0.6:
        model.parts.add("one output per step and one of the sequence")
        return [one_head(model, value, width)[0], one_head(model, *model.summary(value, width))[0]]
    return head(model, value, width)


def branched(model: RandomModel, value: Any, width: int) -> tuple[Any, int]:
    """Two branches of one length, joined; at times each with a mask of its own."""
    one, other = value, value
    if model.random.random() < 0.4:
        one = model.masking(one)
        other = model.masking(other) if model.random.random() < 0.6 else other
        model.parts.add("a mask on a branch" if other == value else "masks merged")
    one, other = model.dense(one, width, 3), model.recurrent(other, width, 3)
    if model.random.random() < 0.25:
        return random_operators.quotient_or_power(model, one, other), 3
    if model.random.random() < 0.3:
        return model.add("Concatenate", [one, other, value], [], axis=-1), 6 + width
    return model.add(model.random.choice(MERGES), [one, other], []), 3


def flattened(model: RandomModel, value: Any, width: int) -> Any:
    """Flatten and Dense, at times with a summary beside the flattened sequence or beside what Dense makes of it."""
    chance = model.random
    sequence = model.recurrent(value, width, 2)
    numbers = model.steps_of(sequence) * 2
    flat = model.add(chance.choice(("Flatten", "Flatten", "Reshape")), [sequence], [], target_shape=[-1])
    if numbers > 2 and chance.random() < 0.4:
        model.parts.add("numbers for each step, flattened")
        weights = [*(model.array(numbers) for _ in range(3)), model.positive(numbers)]
        flat = model.add("BatchNormalization", [flat], weights)
    beside = chance.random()
    if beside < 0.35:
        last, more = model.summary(value, width)
        model.parts.add("joined with a flattened sequence")
        flat = model.add("Concatenate", [last, flat] if chance.random() < 0.3 else [flat, last], [])
        numbers += more
    if chance.random() < 0.4:
        model.parts.add("each number of a flattened sequence")
        flat = model.add("LeakyReLU", [flat], [], negative_slope=0.2)
    if 0.35 <= beside < 0.75:
        last, more = model.summary(value, width)
        model.parts.add("joined with a sum over all steps")
        flat = model.add("Concatenate", [model.dense(flat, numbers, 2, outside=True), last], [])
        numbers = 2 + more
    return head(model, flat, numbers)


def head(model: RandomModel, value: Any, width: int) -> Any:
    """One, or a list of several."""
    if model.random.random() < 0.3:
        value, width = model.dense(value, width, 3, outside=True), 3
    kind = model.random.random()
    if kind < 0.15:
        model.parts.add("several heads")
        return [one_head(model, value, width)[0] for _ in range(model.random.randint(2, 3))]
    if kind < 0.35:
        return taken(model, value, width)
    return one_head(model, value, width)[0]


def taken(model: RandomModel, value: Any, width: int, every: bool | None = None) -> list[Any]:
    """A head, at times behind Dropout, and one of what other layers make of it; `every`, of one at every step: whether
    the other one is at every step, too."""
    chance = model.random
    first, units = one_head(model, value, width)
    behind = model.add("Dropout", [first], [], rate=0.1) if chance.random() < 0.4 else first
    model.parts.add("a head that other layers take" if behind == first else "a head behind Dropout that others take")
    inner = chance.choice((first, behind))
    if every is not None:
        model.parts.add("a head at every step that other layers take")
        inner, units = model.recurrent(inner, units, 2, every), 2
    elif chance.random() < 0.3:
        inner, units = model.add("Concatenate", [inner, value], []), units + width
    outputs = [behind, one_head(model, inner, units)[0]]
    if chance.random() < 0.3:
        model.parts.add("an output twice")
        outputs.append(chance.choice((first, behind)))
    return outputs


def one_head(model: RandomModel, value: Any, width: int) -> tuple[Any, int]:
    """And its number of outputs; at times its activation is a layer of its own."""
    units = model.random.randint(1, 3)
    activation = "sigmoid" if units == 1 else model.random.choice(("sigmoid", "softmax"))
    weights = [model.array(width, units), model.array(units)]
    if model.random.random() < 0.7:
        return model.add("Dense", [value], weights, units=units, activation=activation), units
    model.parts.add("a head whose activation is a layer")
    logits = model.add("Dense", [value], weights, units=units)
    if activation == "softmax":
        return model.softmax(logits), units
    return model.add("Activation", [logits], [], activation=activation), units
