"""Files whose recurrent layers carry their state from call to call, as Keras predicts with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.goldens.table import all_outputs
from tests.goldens.writing import set_random_weights
from tests.unit.model.random_model import RandomModel
from worker.errors import ModelNotStreamable
from worker.model.load import load_program
from worker.model.training import KERAS_2, KERAS_3, predict

WIDTH, STEPS, SEQUENCES = 3, 6, 5


def stateful_model(keras: Any, rows: int, timesteps: int | None, every: bool) -> Any:
    lay = keras.layers
    inputs = keras.Input(batch_shape=(rows, timesteps, WIDTH))
    value = lay.LSTM(4, stateful=True, return_sequences=True)(inputs)
    value = lay.GRU(3, stateful=True, return_sequences=every)(lay.Dense(3, activation="tanh")(value))
    return keras.Model(inputs, lay.Dense(1, activation="sigmoid")(value))


@pytest.mark.parametrize("package", [KERAS_3, KERAS_2])
@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize(("rows", "timesteps"), [(1, 1), (2, STEPS), (2, None)])
def test_a_sequence_begins_with_an_empty_state_and_carries_it_from_step_to_step(
    tmp_path: Path, package: str, every: bool, rows: int, timesteps: int | None
) -> None:
    keras = pytest.importorskip(package)
    model = stateful_model(keras, rows, timesteps, every)
    generator = np.random.default_rng(1)
    model.set_weights([generator.normal(0, 0.7, weight.shape) for weight in model.get_weights()])
    model.save(tmp_path / "model.keras")
    x = generator.normal(0, 1, (SEQUENCES, STEPS, WIDTH)).astype(np.float32)

    program = load_program(tmp_path / "model.keras")
    found, wanted = all_outputs(program, x), predict(tmp_path / "model.keras", x, package)

    assert program.timesteps == (STEPS if timesteps == STEPS else None)
    predicted = ~np.isnan(wanted).all(axis=(0, 2))
    assert predicted.sum() == (STEPS if every or timesteps == 1 else 1)
    np.testing.assert_allclose(found[:, predicted], wanted[:, predicted], atol=1e-6)


def test_files_of_a_fixed_batch_are_compared_in_batches_of_that_size(tmp_path: Path) -> None:
    keras = pytest.importorskip(KERAS_3)
    inputs = keras.Input(batch_shape=(3, STEPS, WIDTH))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(keras.layers.LSTM(4)(inputs)))
    set_random_weights(model, np.random.default_rng(1))
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(2).normal(0, 1, (SEQUENCES, STEPS, WIDTH)).astype(np.float32)

    predicted = predict(tmp_path / "model.keras", x)
    np.testing.assert_allclose(
        all_outputs(load_program(tmp_path / "model.keras"), x)[:, -1], predicted[:, -1], atol=1e-6
    )


def of_one_step() -> RandomModel:
    model = RandomModel(1, features=WIDTH, fixed=True)
    model._layers[0]["config"]["batch_shape"] = [1, 1, WIDTH]
    return model


def rnn(model: RandomModel, value: Any, every: bool = True, **config: Any) -> Any:
    weights = [model.array(WIDTH, WIDTH), model.array(WIDTH, WIDTH), model.array(WIDTH)]
    config = {"units": WIDTH, "return_sequences": every, "stateful": True, **config}
    return model.add("SimpleRNN", [value], weights, **config)


def test_one_step_a_call_does_not_fix_the_number_of_steps() -> None:
    model = of_one_step()
    output = model.add("LeakyReLU", [rnn(model, model.input, every=False)], [])

    assert model.program(output, None).timesteps is None
    assert model.program(output, 9).timesteps == 9


def test_without_a_stateful_layer_one_step_is_a_sequence() -> None:
    model = of_one_step()
    assert model.program(rnn(model, model.input, every=False, stateful=False), None).timesteps == 1


@pytest.mark.parametrize(
    ("class_name", "config", "said"),
    [
        ("GlobalAveragePooling1D", {}, "what it makes of one step is not what it makes of more"),
        ("Flatten", {}, "what it makes of one step"),
        ("Conv1D", {"filters": 2, "kernel_size": [1]}, "what it makes of one step"),
        ("Masking", {}, "Keras answers a masked step with zeros"),
    ],
)
def test_layers_that_see_other_steps_are_refused_by_name(class_name: str, config: dict[str, Any], said: str) -> None:
    model = of_one_step()
    value = model.add(class_name, [rnn(model, model.input)], [], **config)

    assert f"({class_name}) cannot be stepped: the stateful model takes one step a call, and {said}" in model.refusal(
        value
    )


@pytest.mark.parametrize(("step", "served"), [(-1, True), (0, False), (-2, False)])
def test_of_one_step_only_the_newest_is_the_same_in_a_sequence(step: int, served: bool) -> None:
    model = of_one_step()
    everything = {"class_name": "__slice__", "config": {"start": None, "stop": None, "step": None}}
    output = model.add("GetItem", [rnn(model, model.input)], [], [everything, step])

    if served:
        assert model.program(output, None).timesteps is None
    else:
        assert "depends on how many there are" in model.refusal(output)


def test_a_layer_that_begins_anew_at_every_step_is_refused() -> None:
    model = of_one_step()
    value = rnn(model, rnn(model, model.input), every=False, stateful=False)

    assert "it is not stateful and begins anew at every step" in model.refusal(value)


def test_calls_that_share_a_state_are_refused() -> None:
    model = RandomModel(1, features=WIDTH, fixed=True)
    name, _ = first = rnn(model, model.input)

    assert "it is stateful and called more than once" in model.refusal(model.again(name, [first]))


def test_buffer_mode_refuses_stateful_files(tmp_path: Path) -> None:
    keras = pytest.importorskip(KERAS_3)
    stateful_model(keras, 1, STEPS, every=False).save(tmp_path / "model.keras")

    with pytest.raises(ModelNotStreamable, match=r"is stateful, and buffer mode runs whole sequences: build the model"):
        load_program(tmp_path / "model.keras", mode="buffer")
