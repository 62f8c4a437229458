"""Models with several inputs: which features are whose, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.model.written_files import called, functional, layer, sequential, shaped
from worker.errors import ModelNotStreamable
from worker.model.buffered import load_buffered
from worker.model.compile import compile_model
from worker.model.contract import largest_difference, verify
from worker.model.files.reading import ModelFile
from worker.model.inputs import ModelInput, inputs_of, split
from worker.model.load import load_program
from worker.model.numpy_stepper import NumpyStepper
from worker.model.training import predict

ROOT = Path(__file__).parents[3]
GRAPHS = ROOT / "tests" / "goldens" / "graphs"


def test_the_features_are_those_of_the_inputs_in_the_models_order():
    inputs, steps = inputs_of("m", [("b", [None, None, 2]), ("s", [None, 3]), ("a", [None, 7, 1])], {})

    assert inputs == (ModelInput("b", 0, 2), ModelInput("s", 2, 3, is_static=True), ModelInput("a", 5, 1))
    assert steps == 7


def test_a_static_input_is_the_newest_samples():
    samples = np.arange(2 * 4 * 3).reshape(2, 4, 3).astype(np.float32)

    sequence, static = split(samples, (ModelInput("a", 0, 2), ModelInput("b", 2, 1, is_static=True)))

    assert np.array_equal(sequence, samples[:, :, :2])
    assert np.array_equal(static, samples[:, 3, 2:])


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([[None, 5, 2], [None, 6, 2]], "m has inputs of 5 and 6 timesteps"),
        (
            [[None, 5, 2], [None, 5, 2, 1, 1, 1]],
            "input 'in1' of m takes input of 6 dimensions, not (batch, timesteps, features)",
        ),
        ([[None, 5, 2], [None]], "input 'in1' of m takes input of 1 dimensions"),
        ([[None, 5, 2], [None, None]], "input 'in1' of m takes None timesteps of None features"),
        ([[None, 5, 2], None], "input 'in1' of m takes input of unknown dimensions"),
        ([[None, 2], [None, 3]], "m has no input that is a sequence"),
        ([[None, 2]], "m takes input of 2 dimensions, not (batch, timesteps, features)"),
        ([[None, 5, 1 << 14], [None, 1]], "m takes 16385 features"),
        ([[None, 5, 200, 100, 1]], "m takes 20000 features"),
        ([[None, 5, None, 3]], "m takes 5 timesteps of None x 3 features"),
    ],
)
def test_inputs_that_cannot_advance_together_are_refused_in_one_line(shapes, said):
    with pytest.raises(ModelNotStreamable) as refused:
        inputs_of("m", [(f"in{number}", shape) for number, shape in enumerate(shapes)], {})

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.hint


def test_only_the_newest_static_values_matter():
    program = load_program(GRAPHS / "static_input.keras")
    samples = np.random.default_rng(1).standard_normal((1, 4, program.features)).astype(np.float32)
    others = samples.copy()
    others[:, :-1, :2] = 9  # the static input is the model's first
    found = []
    for given in (samples, others):
        state = np.zeros((1, program.state_size), np.float32)
        for t in range(4):
            logits = NumpyStepper(program).step_batch(
                np.zeros(1, np.int64), given[:, t], state, np.array([t + 1], "i4")
            )
        found.append(float(logits[0, 0]))

    assert found[0] == found[1]


def repeating(n: object, of: str = "age", timesteps: int | None = 5) -> ModelNotStreamable:
    def call(*names):
        tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}} for name in names]
        return [{"args": [tensors[0] if len(tensors) == 1 else tensors], "kwargs": {}}]

    def entry(class_name, name, nodes, **config):
        return {"class_name": class_name, "config": {"name": name, **config}, "inbound_nodes": nodes}

    layers = [
        entry("InputLayer", "signal", [], batch_shape=[None, timesteps, 2]),
        entry("InputLayer", "age", [], batch_shape=[None, 3]),
        entry("GlobalMaxPooling1D", "largest", call("signal")),
        entry("RepeatVector", "repeat", call(of), n=n),
        entry("Concatenate", "join", call("signal", "repeat")),
        entry("GlobalMaxPooling1D", "last", call("join")),
    ]
    inner = {"layers": layers, "input_layers": [["signal", 0, 0], ["age", 0, 0]], "output_layers": [["last", 0, 0]]}
    configuration = {"class_name": "Functional", "config": inner}
    with pytest.raises(ModelNotStreamable) as refused:
        compile_model(ModelFile(Path("m.keras"), configuration, 3, lambda *_: []))
    return refused.value


def test_only_a_static_input_is_repeated_and_as_often_as_there_are_steps():
    assert "it repeats 4 times for 5 timesteps" in str(repeating(4))
    assert "it repeats 5 times for None timesteps" in str(repeating(5, timesteps=None))
    assert "it repeats 'x' times" in str(repeating("x"))
    assert "a decoder starts after the last step" in str(repeating(5, of="largest"))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_an_input_of_whole_numbers_is_for_ids_only(dtype):
    dense = called(layer("Dense", "dense", units=1), "input")
    start = called({**shaped(5, 2), "config": {**shaped(5, 2)["config"], "dtype": dtype}})
    nested = functional("inner", start, dense)

    for configuration in (
        functional("model", start, dense),
        sequential(start, dense),
        functional("outer", called(shaped(5, 2)), called(nested, "input")),
    ):
        with pytest.raises(ModelNotStreamable, match="the input 'input' takes whole numbers") as refused:
            compile_model(ModelFile(Path("m.keras"), configuration, 3, lambda *_: []))
        assert refused.value.hint == "build the model with an input of float32 and load the weights there"


def test_files_of_one_input_keep_their_fingerprint():
    known = json.loads((ROOT / "tests" / "goldens" / "fingerprints.json").read_text())

    assert {name: load_program(ROOT / name, timesteps=12).fingerprint for name in known} == known


@pytest.mark.parametrize(
    "name", ["two_sequences", "static_input", "named_inputs", "masked_inputs", "only_ids", "masked_ids", "nested_ids"]
)
def test_buffer_mode_and_keras_itself_take_the_same_features_apart(name):
    golden, path = np.load(GRAPHS / f"{name}.npz"), GRAPHS / f"{name}.keras"
    samples, wanted = golden["inputs"], golden["prefixes"]
    buffered = load_buffered(path, timesteps=12)

    assert buffered.inputs == load_program(path).inputs
    assert largest_difference(predict(path, samples)[:, -1], wanted[:, -1]) < 1e-6
    outputs = buffered.outputs_of(buffered.whole(samples).reshape(-1, 1)).reshape(wanted.shape)
    assert largest_difference(outputs, wanted) < 1e-6
    verify(buffered)


def test_outputs_by_name_follow_one_another_as_keras_sorts_them(tmp_path):
    import keras

    given = keras.layers.Input((None, 2))
    last = keras.layers.GRU(3)(given)
    heads = {name: keras.layers.Dense(1, activation="sigmoid", name=name)(last) for name in ("z", "a")}
    keras.Model(given, heads).save(tmp_path / "named.keras")
    samples = np.random.default_rng(1).standard_normal((3, 4, 2)).astype(np.float32)

    program = load_program(tmp_path / "named.keras")

    outputs = program.outputs_of(program.whole(samples)[:, -1])
    assert np.abs(predict(tmp_path / "named.keras", samples)[:, -1] - outputs).max() < 1e-6
