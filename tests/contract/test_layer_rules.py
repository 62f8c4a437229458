"""The contract of every layer rule, one by one: a layer that is stepped is the layer on every prefix.

One verifier for all rules and engines, that of the random graphs (tests/unit/model/verifier.py). A rule without an
entry here fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.unit.model.random_grid import RandomGrid
from tests.unit.model.random_model import PLAIN, TIMESTEPS, RandomModel
from tests.unit.model.random_operators import above, piece
from tests.unit.model.verifier import Verifier
from worker.model.activations import FUNCTIONS
from worker.model.contract import drawn_samples
from worker.model.engines import stepper_for
from worker.model.program import StepProgram
from worker.model.rules.operators import OPERATORS
from worker.model.rules.table import RULES

ENGINES = ("numpy", "tensorflow")
STREAMS, WIDTH = 4, 3

Build = Callable[[RandomModel, Any], Any]
"""(model, its input) → a value."""


def layer(class_name: str, *weights: Callable[[RandomModel], Any], **config: Any) -> Build:
    return lambda model, value: model.add(class_name, [value], [make(model) for make in weights], **config)


def array(*shape: int) -> Callable[[RandomModel], Any]:
    return lambda model: model.array(*shape)


def positive(*shape: int) -> Callable[[RandomModel], Any]:
    return lambda model: model.positive(*shape)


def after(*builds: Build) -> Build:
    """One layer after the other."""

    def build(model: RandomModel, value: Any) -> Any:
        for each in builds:
            value = each(model, value)
        return value

    return build


def branches(class_name: str, *parts: Build) -> Build:
    return lambda model, value: model.add(class_name, [part(model, value) for part in parts], [])


def attention(class_name: str, *weights: Callable[[RandomModel], Any], **config: Any) -> Build:
    def build(model: RandomModel, value: Any) -> Any:
        attended = model.add(class_name, [value, value], [make(model) for make in weights], **config)
        model.call_with({"use_causal_mask": True})
        return attended

    return build


def picked(*keys: Any) -> Build:
    return lambda model, value: model.add("GetItem", [value], [], [piece(), *keys])


def operation(class_name: str, *given: Any, positive: bool = False, **config: Any) -> Build:
    """Of numbers above a half where it has none for others."""

    def build(model: RandomModel, value: Any) -> Any:
        return model.operation(class_name, [above(model, value) if positive else value], *given, **config)

    return build


def quotient(class_name: str) -> Build:
    """Of positive numbers."""
    return lambda model, value: model.operation(class_name, [above(model, value), above(model, DENSE(model, value))])


def recurrent(class_name: str, gates: int, **config: Any) -> list[Build]:
    """Every output; masked steps left out, and answered with zeros."""
    biases = (2, gates * 2) if config.get("reset_after") else (gates * 2,)
    weights = array(WIDTH, gates * 2), array(2, gates * 2), array(*biases)
    config |= {"units": 2, "return_sequences": True}
    every = layer(class_name, *weights, **config)
    return [
        every,
        after(MASKED, every),
        after(MASKED, layer(class_name, *weights, zero_output_for_mask=True, **config)),
    ]


def grids(rank: int, *, every: bool, flatten: bool) -> Build:
    """A row of each step, or of the last."""

    def build(model: RandomModel, _: Any) -> Any:
        grid = RandomGrid(model, rank)
        grid.conv_lstm(every=True, padding="same")
        grid.at_each_position()
        value = grid.conv_lstm(every=every, padding="same")
        class_name = "Flatten" if flatten else f"GlobalAveragePooling{rank}D"
        if not every:
            return model.add(class_name, [value], [])
        return model.add("TimeDistributed", [value], [], layer={"class_name": class_name, "config": {}})

    return build


def normalised_and_joined(model: RandomModel, value: Any) -> Any:
    """A flattened sequence and a vector, with a number of its own for each of their numbers."""
    numbers = TIMESTEPS * WIDTH + WIDTH
    parts = [model.add("Flatten", [value], []), picked(-1)(model, value)]
    joined = model.add("Concatenate", parts, [])
    weights = [*(model.array(numbers) for _ in range(3)), model.positive(numbers)]
    normalised = model.add("BatchNormalization", [joined], weights)
    return model.add("Dense", [normalised], [model.array(numbers, 2), model.array(2)], units=2)


MASKED, OTHER_MASK = layer("Masking", mask_value=0.5), layer("Masking", mask_value=-1.0)
DENSE = layer("Dense", array(WIDTH, WIDTH), array(WIDTH), units=WIDTH, activation="tanh")
STRIDED = layer("Conv1D", array(2, WIDTH, WIDTH), array(WIDTH), filters=WIDTH, kernel_size=[2], strides=[2])
HEADS = array(WIDTH, 2, 2), array(2, 2)
POOLINGS: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("GlobalAveragePooling1D", "GlobalMaxPooling1D")},
    **{name: {"axis": 1} for name in ("Mean", "Max", "Min", "Sum")},
}

OF_POSITIVE = ("Sqrt", "Rsqrt", "Reciprocal", "Log", "Log1p")
PARAMETERS = {"Clip": {"x_min": -0.5, "x_max": 1}, "Threshold": {"threshold": 0.1, "default_value": -0.3}}

SEQUENCES: dict[str, list[Build]] = {
    "LSTM": recurrent("LSTM", 4),
    "GRU": recurrent("GRU", 3, reset_after=True) + recurrent("GRU", 3),
    "SimpleRNN": recurrent("SimpleRNN", 1),
    "Dense": [DENSE],
    "ConvLSTM1D": [grids(1, every=True, flatten=True), grids(1, every=True, flatten=False)],
    "ConvLSTM2D": [grids(2, every=True, flatten=True)],
    "GlobalAveragePooling2D": [grids(2, every=True, flatten=False)],
    **{name: [layer(name, rate=0.3)] for name in (*PLAIN, "Identity")},
    "Activation": [branches("Concatenate", *(layer("Activation", activation=name) for name in sorted(FUNCTIONS)))],
    "Softmax": [layer("Softmax")],
    "LeakyReLU": [layer("LeakyReLU", negative_slope=0.2), layer("LeakyReLU", negative_slope=1.5)],
    "ReLU": [layer("ReLU", max_value=1.5, negative_slope=0.1, threshold=0.2)],
    "ELU": [layer("ELU", alpha=0.7)],
    "Rescaling": [
        layer("Rescaling", scale=0.7, offset=0.1),
        layer("Rescaling", scale=[0.7, -1.0, 2.0], offset=[0.1, 0.0, -0.3]),
        *(operation(name, [0.5, -1.0, 2.0]) for name in ("Add", "Subtract", "Multiply", "TrueDivide")),
        after(operation("Subtract", first=1), operation("Negative")),
    ],
    **{name: [quotient(name), operation(name, first=2, positive=True)] for name in ("Divide", "Power")},
    **{name: [operation(name, positive=name in OF_POSITIVE, **PARAMETERS.get(name, {}))] for name in OPERATORS},
    "BatchNormalization": [
        layer("BatchNormalization", *[array(WIDTH)] * 3, positive(WIDTH)),
        layer("BatchNormalization", *[array(TIMESTEPS)] * 3, positive(TIMESTEPS), axis=1),
    ],
    "LayerNormalization": [
        layer("LayerNormalization", array(WIDTH), array(WIDTH), epsilon=0.01),
        layer("LayerNormalization", array(WIDTH), epsilon=0.01, rms_scaling=True),
    ],
    "RMSNormalization": [layer("RMSNormalization", array(WIDTH))],
    "UnitNormalization": [layer("UnitNormalization")],
    "Normalization": [
        layer("Normalization", array(WIDTH), positive(WIDTH)),
        layer("Normalization", array(), positive(), axis=[]),
        layer("Normalization", array(TIMESTEPS, WIDTH), positive(TIMESTEPS, WIDTH), axis=[1, 2]),
        layer("Normalization", array(TIMESTEPS), positive(TIMESTEPS), axis=1, invert=True),
    ],
    "PReLU": [
        layer("PReLU", array(1, WIDTH), shared_axes=[1]),
        layer("PReLU", array(TIMESTEPS, WIDTH)),
        layer("PReLU", array(TIMESTEPS, 1), shared_axes=[2]),
        layer("PReLU", array(1, 1), shared_axes=[1, 2]),
    ],
    **{
        name: [
            branches(name, DENSE, DENSE),
            branches(name, after(STRIDED, DENSE), STRIDED),
            branches(name, after(MASKED, DENSE), after(OTHER_MASK, DENSE)),
        ]
        for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")
    },
    "Masking": [MASKED, after(STRIDED, layer("ReLU"), layer("Masking"))],
    "InputLayer": [lambda model, value: model.add("Concatenate", [value, model.another_input(2, False)], [])],
    "Embedding": [
        lambda model, value: model.add("Concatenate", [value, model.row_of_id(2, mask_zero=False)], []),
        lambda model, _: DENSE(model, model.row_of_id(WIDTH, mask_zero=False)),
        lambda model, _: recurrent("GRU", 3)[0](model, model.row_of_id(WIDTH, mask_zero=True)),
    ],
    "RepeatVector": [
        lambda model, value: model.add(
            "Concatenate", [value, model.add("RepeatVector", [model.another_input(2, True)], [], n=TIMESTEPS)], []
        )
    ],
    "Conv1D": [
        STRIDED,
        layer("Conv1D", array(2, 1, 6), array(6), filters=6, kernel_size=[2], groups=3),
        layer("Conv1D", array(3, WIDTH, 2), array(2), filters=2, kernel_size=[3], padding="causal", dilation_rate=[2]),
        after(STRIDED, layer("Conv1D", array(2, WIDTH, 2), array(2), filters=2, kernel_size=[2])),
    ],
    "DepthwiseConv1D": [
        layer("DepthwiseConv1D", array(3, WIDTH, 2), array(WIDTH * 2), kernel_size=[3], depth_multiplier=2)
    ],
    "SeparableConv1D": [
        layer(
            *("SeparableConv1D", array(2, WIDTH, 1), array(1, WIDTH, 2), array(2)),
            **{"filters": 2, "kernel_size": [2], "strides": [2], "depth_multiplier": 1},
        )
    ],
    "MaxPooling1D": [layer("MaxPooling1D", pool_size=[2])],
    "AveragePooling1D": [layer("AveragePooling1D", pool_size=[3], strides=[1])],
    "MultiHeadAttention": [
        attention(
            *("MultiHeadAttention", *HEADS, *HEADS, *HEADS, array(2, 2, WIDTH), array(WIDTH)),
            **{"num_heads": 2, "key_dim": 2},
        )
    ],
    "Attention": [attention("Attention", use_scale=False)],
    "AdditiveAttention": [attention("AdditiveAttention", array(WIDTH), use_scale=True)],
    "GetItem": [picked(piece(), piece(1, 3)), after(STRIDED, picked(piece(1, -1), piece(None, 2)))],
    "Cropping1D": [layer("Cropping1D", cropping=[1, 2])],
}
"""What gives a sequence is read out by its newest step."""
VECTORS: dict[str, list[Build]] = {
    "Dense": [
        after(layer("Flatten"), layer("Dense", array(TIMESTEPS * WIDTH, 2), array(2), units=2)),
        lambda model, value: normalised_and_joined(model, value),
    ],
    "InputLayer": [lambda model, value: model.add("Concatenate", [picked(-1)(model, value), static(model)], [])],
    "ConvLSTM1D": [grids(1, every=False, flatten=True), grids(1, every=False, flatten=False)],
    "ConvLSTM2D": [grids(2, every=False, flatten=True)],
    "GlobalAveragePooling2D": [grids(2, every=False, flatten=False)],
    "GetItem": [picked(-2), picked(3), after(MASKED, DENSE, picked(-1)), picked(3, piece(1, None))],
    **{
        name: [after(*before, layer(name, **config)) for before in ((), (MASKED,), (STRIDED,))]
        for name, config in POOLINGS.items()
    },
}
ENTRIES = {
    name: [after(build, picked(-1)) for build in SEQUENCES.get(name, [])] + VECTORS.get(name, [])
    for name in {**SEQUENCES, **VECTORS}
}
KERNEL = (
    "LSTM",
    "GRU",
    "SimpleRNN",
    "Dense",
    *PLAIN,
    "Identity",
    "LeakyReLU",
    "ELU",
    "Rescaling",
    "BatchNormalization",
)
KERNEL_CASES = [
    *[pytest.param(SEQUENCES[name][0], id=name) for name in KERNEL],
    pytest.param(SEQUENCES["GRU"][3], id="GRU-reset_before"),
    pytest.param(VECTORS["Dense"][0], id="Dense-flattened"),
]
"""What the kernel has an operation for, with one output per step: it has none that picks the newest."""
CASES = [pytest.param(build, id=f"{name}-{number}") for name in ENTRIES for number, build in enumerate(ENTRIES[name])]


def static(model: RandomModel) -> Any:
    return model.another_input(2, is_static=True)


def compiled(build: Build) -> StepProgram:
    model = RandomModel(7, features=WIDTH, fixed=True)
    return model.program(build(model, model.input))


def test_every_rule_has_an_entry_with_the_layer():
    assert set(ENTRIES) == {*RULES, *OPERATORS}
    for name, builds in ENTRIES.items():
        for build in builds:
            assert name in {row.class_name for row in compiled(build).plan}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("build", CASES)
def test_a_layer_that_is_stepped_is_the_layer_on_every_prefix(build, engine):
    program = compiled(build)
    samples = drawn_samples(program, STREAMS, TIMESTEPS, np.random.default_rng(1), masked=0.3)

    verifier = Verifier(program, stepper_for(program, engine), samples)
    verifier.verify()
    verifier.verify_other_batches()


@pytest.mark.parametrize("build", KERNEL_CASES)
def test_a_layer_that_the_kernel_steps_is_the_layer_on_every_prefix(build):
    program = compiled(build)
    samples = drawn_samples(program, STREAMS, TIMESTEPS, np.random.default_rng(1))

    verifier = Verifier(program, stepper_for(program, "kernel"), samples)
    verifier.verify()
    verifier.verify_other_batches()
