"""The compiled loop equals the NumPy engine and the float64 evaluation, for any batch, bit for bit with itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.model.architectures import layer, program, programs
from tests.unit.model.kernel_product import product
from tests.unit.model.test_numpy_stepper import in_place, steps_of
from tests.unit.model.test_program import STREAMS, by_hand, mixed_records, weighted
from worker.errors import ConfigError
from worker.model.contract import verify
from worker.model.engines import operations_of, stepper_for
from worker.model.kernel.operations import in_blocks, tables
from worker.model.load import load_program
from worker.model.numpy_stepper import NumpyStepper

REFERENCE = Path(__file__).parents[3] / "examples" / "basic_motions" / "badminton.keras"
EXPRESSIBLE = [
    layer("Rescaling", scale=0.5, offset=0.1),
    layer("LSTM", units=4, return_sequences=True, recurrent_activation="hard_sigmoid"),
    layer("LeakyReLU", negative_slope=0.3),
    layer("GRU", units=3, return_sequences=True, reset_after=True),
    layer("GRU", units=3, return_sequences=True, reset_after=False),
    layer("ELU", alpha=0.7),
    layer("SimpleRNN", units=5, return_sequences=True, activation="relu"),
    layer("Flatten"),
    layer("Dense", units=3, activation="tanh"),
    layer("Dense", units=2, activation="softmax"),
]


def test_every_operation_equals_the_float64_evaluation():
    compiled = program(EXPRESSIBLE, features=3, timesteps=6)
    assert verify(compiled, stepper_for(compiled, "kernel")).largest_difference <= 1e-6


@pytest.mark.parametrize(
    "first",
    [
        layer("LSTM", units=19, return_sequences=True),
        layer("GRU", units=45, return_sequences=True, reset_after=True),
        layer("GRU", units=27, return_sequences=True, reset_after=False),
    ],
)
def test_widths_of_whole_blocks_of_vectors_and_of_what_is_left_equal_the_float64_evaluation(first):
    layers = [first, layer("Flatten"), layer("Dense", units=11, activation="softmax")]
    compiled = program(layers, features=5, timesteps=6)
    assert verify(compiled, stepper_for(compiled, "kernel")).largest_difference <= 1e-6


@settings(deadline=None)
@given(st.integers(0, 9), st.integers(1, 150))
def test_a_product_is_that_of_numpy_at_any_width_and_touches_nothing_behind_it(rows, width):
    generator = np.random.default_rng(width)
    z, x = generator.standard_normal(width + 3).astype(np.float32), generator.standard_normal(rows).astype(np.float32)
    weights = generator.standard_normal((rows, width)).astype(np.float32)
    wanted = z.copy()
    wanted[:width] += x @ weights
    product(z, x, in_blocks(weights), width)
    np.testing.assert_allclose(z, wanted, rtol=0, atol=5e-6)
    assert z[width:].tobytes() == wanted[width:].tobytes()


def test_a_batch_normalization_equals_the_float64_evaluation():
    generator = np.random.default_rng(1)
    weights = {"normalised": [np.abs(generator.standard_normal(4)).astype(np.float32) + 0.2 for _ in range(4)]}
    layers = [layer("LSTM", units=4), layer("BatchNormalization", name="normalised"), layer("Dense", units=1)]
    compiled = program(layers, weights=weights)
    assert verify(compiled, stepper_for(compiled, "kernel")).largest_difference <= 1e-6


def test_the_reference_model_equals_the_float64_evaluation():
    compiled = load_program(REFERENCE)
    assert verify(compiled, stepper_for(compiled, "kernel")).largest_difference <= 1e-6


@settings(deadline=None, max_examples=60)
@given(programs(), st.data())
def test_what_the_kernel_can_express_equals_the_numpy_engine(compiled, data):
    operations, reason = operations_of(compiled)
    if operations is None:
        assert reason.startswith("it has no ")
        return
    slots = np.array(data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=40)), np.int64)
    features = np.random.default_rng(1).standard_normal((len(slots), compiled.features)).astype(np.float32)
    steps = steps_of(slots, 5)
    kernel, numpy = in_place(8, compiled.state_size), in_place(8, compiled.state_size)
    got = stepper_for(compiled, "kernel").step_batch(slots, features, kernel, steps)
    wanted = NumpyStepper(compiled).step_batch(slots, features, numpy, steps)
    np.testing.assert_allclose(got, wanted, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(kernel, numpy, rtol=2e-6, atol=2e-6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 39))
def test_a_streams_numbers_are_the_same_bits_whatever_else_is_in_the_batch(slots, cut):
    compiled = program(EXPRESSIBLE, features=3, timesteps=6)
    stepper = stepper_for(compiled, "kernel")
    records = np.array(slots, np.int64)
    features = np.random.default_rng(2).standard_normal((len(records), 3)).astype(np.float32)
    steps = steps_of(records, 6)
    whole, parts = in_place(8, compiled.state_size), in_place(8, compiled.state_size)
    together = stepper.step_batch(records, features, whole, steps)
    apart = [
        stepper.step_batch(records[part], features[part], parts, steps[part])
        for part in (slice(None, cut), slice(cut, None))
    ]
    assert together.tobytes() == np.concatenate(apart).tobytes()
    assert np.array(whole).tobytes() == np.array(parts).tobytes()


def test_a_stream_of_nan_answers_nan_and_leaves_the_others_alone():
    compiled = program(EXPRESSIBLE, features=3, timesteps=6)
    stepper = stepper_for(compiled, "kernel")
    states = in_place(2, compiled.state_size)
    features = np.array([[np.nan] * 3, [0.1, 0.2, 0.3]], np.float32)
    logits = stepper.step_batch(np.array([0, 1]), features, states, np.array([1, 1], np.int32))
    assert np.isnan(logits[0]).all()
    assert np.isfinite(logits[1]).all()


@pytest.mark.parametrize("units", [1, 11, 70, 150])
def test_scores_of_any_width_are_those_of_the_state(units):
    compiled = program([layer("LSTM", units=20), layer("Dense", units=units, activation="softmax")])
    scored = weighted(compiled)
    slots, features, steps = mixed_records(compiled)
    wanted, _ = by_hand(scored, compiled, slots, features, steps)
    states = in_place(STREAMS + 1, compiled.state_size)
    answers = stepper_for(scored, "kernel").step_batch(slots, features, states, steps)
    good = slots != STREAMS
    np.testing.assert_allclose(answers[good], wanted[good], atol=2e-6)


@pytest.mark.parametrize("units", [1, 70])
def test_there_is_room_for_as_many_scores_as_logits_and_none_for_the_whole_state(units):
    layers = [layer("LSTM", units=20, return_sequences=True), layer("LSTM", units=20), layer("Dense", units=units)]
    compiled = program(layers)
    scored = weighted(compiled)
    assert tables(operations_of(scored)[0], compiled.features).width == max(20, 2 * units)


def test_a_layer_that_the_kernel_lacks_is_named():
    compiled = program([layer("LSTM", units=2, activation="softsign"), layer("Dense", units=1, activation="sigmoid")])
    with pytest.raises(ConfigError, match="no LSTM like that of layer 'layer_0'"):
        stepper_for(compiled, "kernel")
    assert isinstance(stepper_for(compiled, "auto"), NumpyStepper)
