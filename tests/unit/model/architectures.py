"""Models as configuration and random weights, without a file and without Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from worker.model.compile import compile_model
from worker.model.files.reading import ModelFile
from worker.model.program import StepProgram

Entry = dict[str, Any]


def layer(class_name: str, **config: Any) -> Entry:
    return {"class_name": class_name, "config": config}


def model_file(
    layers: list[Entry],
    *,
    features: int = 3,
    timesteps: int | None = 5,
    seed: int = 0,
    keras_major: int = 3,
    weights: dict[str, list[np.ndarray]] | None = None,
) -> ModelFile:
    """Sequential of these layers, named by number where they have no name, with weights that fit them."""
    named, made, width, flat = [], {}, features, False
    generator = np.random.default_rng(seed)
    for number, entry in enumerate(layers):
        config = {"name": f"layer_{number}", **entry["config"]}
        named.append({**entry, "config": config})
        gain = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1, "Dense": 1}.get(entry["class_name"])
        flat = flat or entry["class_name"] == "Flatten"
        if gain is None or not isinstance(config["units"], int):
            continue
        units = config["units"]
        if config["name"] in (weights or {}):
            width, flat = units, False
            continue
        inputs = width * timesteps if flat and timesteps and entry["class_name"] == "Dense" else width
        shapes = [(inputs, gain * units)]
        if entry["class_name"] != "Dense":
            shapes.append((units, gain * units))
        if config.get("use_bias", True):
            shapes.append((2, 3 * units) if config.get("reset_after") else (gain * units,))
        made[config["name"]] = [generator.normal(0, 0.4, shape).astype(np.float32) for shape in shapes]
        width, flat = units, False
    made |= weights or {}
    inputs = layer("InputLayer", batch_shape=[None, timesteps, features], name="input")
    configuration = {"class_name": "Sequential", "config": {"name": "random", "layers": [inputs, *named]}}
    return ModelFile(Path("random.keras"), configuration, keras_major, lambda name, _class, _k: made.get(name, []))


def program(layers: list[Entry], **arguments: Any) -> StepProgram:
    return compile_model(model_file(layers, **arguments))


FUNCTIONS = ("linear", "tanh", "sigmoid", "relu", "softsign", "hard_sigmoid", "elu", "silu")


@st.composite
def programs(draw: st.DrawFn) -> StepProgram:
    """One to three recurrent layers with elementwise layers and Dense between them, read out in one of two ways."""
    units = st.integers(1, 6)
    between = st.sampled_from(
        [
            [],
            [layer("LeakyReLU", negative_slope=0.3)],
            [layer("Dropout", rate=0.5)],
            [layer("Dense", units=4, activation="relu")],
            [layer("ELU", alpha=0.5), layer("Rescaling", scale=0.5, offset=0.1)],
        ]
    )
    layers: list[Entry] = list(draw(between))
    depth = draw(st.integers(1, 3))
    flatten = draw(st.booleans())
    for number in range(depth):
        every_step = flatten or number < depth - 1
        config: dict[str, Any] = {"units": draw(units), "return_sequences": every_step, "use_bias": draw(st.booleans())}
        class_name = draw(st.sampled_from(["LSTM", "GRU", "SimpleRNN"]))
        if draw(st.booleans()):
            config["activation"] = draw(st.sampled_from(("tanh", "sigmoid", "softsign")))
        if class_name == "GRU":
            config["reset_after"] = draw(st.booleans())
        if class_name != "SimpleRNN" and draw(st.booleans()):
            config["recurrent_activation"] = draw(st.sampled_from(("sigmoid", "hard_sigmoid")))
        layers += [layer(class_name, **config), *draw(between)]
    if flatten:
        layers.append(layer("Flatten"))
    if draw(st.booleans()):
        layers.append(layer("Dense", units=draw(units), activation=draw(st.sampled_from(FUNCTIONS))))
    layers.append(
        layer("Dense", units=draw(st.integers(1, 3)), activation=draw(st.sampled_from(("sigmoid", "softmax"))))
    )
    return program(layers, features=draw(st.integers(1, 4)), timesteps=5, seed=draw(st.integers(0, 99)))
