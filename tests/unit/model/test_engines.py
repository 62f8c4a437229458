"""Which engine steps what, and that all give the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.model.architectures import layer, program, programs
from tests.unit.model.random_graphs import random_program
from tests.unit.model.test_numpy_stepper import in_place, steps_of
from tests.unit.model.test_program import PROGRAMS, STREAMS, WEIGHTED, by_hand, mixed_records, weighted
from worker.core.waves import deepest
from worker.errors import ConfigError
from worker.model import engines, tensorflow_stepper
from worker.model.contract import verify
from worker.model.engines import (
    KERNEL_WEIGHTS_MAX,
    WAVE_STREAMS_MIN,
    SmallWavesByKernel,
    operations_of,
    stepper_for,
    verify_engine,
)
from worker.model.kernel.stepper import KernelStepper
from worker.model.load import load_program
from worker.model.numpy_stepper import NumpyStepper

GRAPHS = 25
REFERENCE = Path(__file__).parents[3] / "examples" / "basic_motions" / "badminton.keras"


@given(st.lists(st.integers(0, 5), max_size=30))
def test_the_deepest_slot_is_the_one_with_most_records(slots):
    assert deepest(np.array(slots, np.int64)) == max((slots.count(slot) for slot in slots), default=0)


def test_tensorflow_steps_the_reference_model():
    compiled = load_program(REFERENCE)
    assert verify(compiled, stepper_for(compiled, "tensorflow")).largest_difference <= 1e-6


@settings(deadline=None, max_examples=15)
@given(programs(), st.data())
def test_tensorflow_gives_what_numpy_gives(compiled, data):
    slots = np.array(data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=40)), np.int64)
    features = np.random.default_rng(1).standard_normal((len(slots), compiled.features)).astype(np.float32)
    steps = steps_of(slots, 5)
    tensorflow, numpy = in_place(8, compiled.state_size), in_place(8, compiled.state_size)
    got = stepper_for(compiled, "tensorflow").step_batch(slots, features, tensorflow, steps)
    wanted = NumpyStepper(compiled).step_batch(slots, features, numpy, steps)
    np.testing.assert_allclose(got, wanted, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(tensorflow, numpy, rtol=2e-6, atol=2e-6)


def test_with_states_that_stay_rows_are_neither_read_nor_written_until_they_are_fetched_and_forgotten():
    compiled = load_program(REFERENCE)
    slots, slot = np.arange(10), np.array([3])
    features = np.random.default_rng(1).standard_normal((10, compiled.features)).astype(np.float32)
    first, second = np.full(10, 1, np.int32), np.full(10, 2, np.int32)
    plain, staying = stepper_for(compiled, "tensorflow"), stepper_for(compiled, "tensorflow")
    staying.hold_states()
    wanted, rows = in_place(10, compiled.state_size), in_place(10, compiled.state_size)
    before = rows.copy()
    plain.step_batch(slots, features, wanted, first)
    after_one = wanted.copy()
    staying.step_batch(slots, features, rows, first)
    assert rows.tobytes() == before.tobytes()
    logits = plain.step_batch(slots, features, wanted, second)
    np.testing.assert_allclose(staying.step_batch(slots, features, rows, second), logits, atol=1e-6)
    staying.fetch(slots, rows)
    np.testing.assert_allclose(rows, wanted, atol=1e-6)
    rows[3] = after_one[3]
    staying.forget(slot)
    np.testing.assert_allclose(staying.step_batch(slot, features[3:4], rows, second[:1]), logits[3:4], atol=1e-6)
    staying.fetch(np.array([3, 99]), rows)
    np.testing.assert_allclose(rows[3], wanted[3], atol=1e-6)


@pytest.mark.parametrize("sizes", [[7, 3, 1, 1], [70, 64, 8], [600] * 15, [4097, 4095], [8191, 1], [9000, 4500, 9, 1]])
@pytest.mark.parametrize("streams_max", [64, 8192])
def test_tensorflow_pads_waves_of_any_number_of_streams(sizes, streams_max, monkeypatch):
    compiled = program([layer("LSTM", units=2), layer("Dense", units=1, activation="sigmoid")])
    monkeypatch.setattr(tensorflow_stepper, "STATE_FLOATS_MAX", streams_max * compiled.state_size)
    slots = np.concatenate([np.arange(size) for size in sizes])
    features = np.random.default_rng(1).standard_normal((len(slots), compiled.features)).astype(np.float32)
    steps = steps_of(slots, 100)
    mine, other = in_place(sizes[0], compiled.state_size), in_place(sizes[0], compiled.state_size)
    got = stepper_for(compiled, "tensorflow").step_batch(slots, features, mine, steps)
    np.testing.assert_allclose(got, NumpyStepper(compiled).step_batch(slots, features, other, steps), atol=1e-6)
    np.testing.assert_allclose(mine, other, atol=1e-6)


@pytest.mark.parametrize("seed", range(GRAPHS))
def test_tensorflow_steps_graphs_with_branches_windows_and_masks(seed):
    compiled = random_program(seed)
    assert verify(compiled, stepper_for(compiled, "tensorflow")).largest_difference <= 1e-6


def test_an_empty_batch_is_no_call():
    compiled = load_program(REFERENCE)
    empty = np.empty(0, np.int64)
    states = np.zeros((1, compiled.state_size), np.float32)
    stepper = stepper_for(compiled, "tensorflow")
    assert stepper.step_batch(empty, np.empty((0, 3), np.float32), states, empty.astype(np.int32)).shape == (0, 1)


def test_auto_takes_the_kernel_for_small_models():
    compiled = load_program(REFERENCE)
    stepper = stepper_for(compiled, "auto")
    assert isinstance(stepper, KernelStepper)
    verify_engine(compiled, stepper)


def test_auto_takes_the_kernel_for_a_hot_key_and_numpy_for_many_streams_of_a_model_of_middle_size():
    compiled = program([layer("LSTM", units=120), layer("Dense", units=1, activation="sigmoid")])
    stepper = stepper_for(compiled, "auto")
    assert isinstance(stepper, SmallWavesByKernel)
    verify_engine(compiled, stepper)
    for slots in (np.zeros(50, np.int64), np.arange(WAVE_STREAMS_MIN), np.arange(WAVE_STREAMS_MIN) % 60):
        features = np.random.default_rng(1).standard_normal((len(slots), compiled.features)).astype(np.float32)
        steps = steps_of(slots, 100)
        mine, other = in_place(128, compiled.state_size), in_place(128, compiled.state_size)
        few = len(slots) < WAVE_STREAMS_MIN * deepest(slots)
        got = stepper.step_batch(slots, features, mine, steps)
        wanted = (stepper.by_record if few else stepper.by_waves).step_batch(slots, features, other, steps)
        assert few == (len(set(slots.tolist())) < WAVE_STREAMS_MIN)
        assert got.tobytes() == wanted.tobytes()


def test_auto_takes_numpy_for_what_the_kernel_lacks_and_for_large_models():
    lacking = program([layer("LSTM", units=2, activation="softsign"), layer("Dense", units=1, activation="sigmoid")])
    large = program([layer("LSTM", units=200), layer("Dense", units=1, activation="sigmoid")])
    assert isinstance(stepper_for(lacking), NumpyStepper)
    assert isinstance(stepper_for(large), NumpyStepper)


def test_a_layer_that_the_kernel_lacks_is_named():
    lacking = program([layer("LSTM", units=2, activation="softsign"), layer("Dense", units=1, activation="sigmoid")])
    with pytest.raises(ConfigError, match="'kernel' is not possible: it has no LSTM like that of layer 'layer_0'"):
        stepper_for(lacking, "kernel")


@pytest.mark.parametrize(
    ("engine", "make"),
    [("kernel", *PROGRAMS[0].values)]
    + [(engine, *each.values) for engine in ("numpy", "tensorflow") for each in PROGRAMS],
)
def test_every_engine_gives_the_scores_of_the_stepped_state(engine, make):
    plain, scored = make(), weighted(make())
    slots, features, steps = mixed_records(plain)
    wanted, states_wanted = by_hand(scored, plain, slots, features, steps)
    stepper = stepper_for(scored, engine)
    good = slots != STREAMS
    for records_max in (1, 9, 100):  # one sample, some of most streams, several of every stream
        states = in_place(STREAMS + 1, plain.state_size)
        parts = [slice(start, start + records_max) for start in range(0, len(slots), records_max)]
        found = [stepper.step_batch(slots[part], features[part], states, steps[part]) for part in parts]
        answers = np.concatenate(found)
        assert answers.shape == (len(slots), stepper.columns) == (len(slots), 2 * plain.outputs)
        assert answers.dtype == np.float32
        np.testing.assert_allclose(answers[good], wanted[good], atol=1e-6)
        np.testing.assert_allclose(states[:STREAMS], states_wanted[:STREAMS], atol=1e-6)
        assert (answers[steps > WEIGHTED, plain.outputs :] == 0).all()
    verify(scored, stepper)


def test_scores_are_those_of_states_that_stay_on_the_device():
    plain = load_program(REFERENCE)
    scored = weighted(plain)
    slots, features, steps = mixed_records(plain)
    wanted, _ = by_hand(scored, plain, slots, features, steps)
    stepper, rows = stepper_for(scored, "tensorflow"), in_place(STREAMS + 1, plain.state_size)
    before = rows.tobytes()
    stepper.hold_states()
    parts = [slice(start, start + 9) for start in range(0, len(slots), 9)]
    answers = [stepper.step_batch(slots[part], features[part], rows, steps[part]) for part in parts]
    good = slots != STREAMS
    assert rows.tobytes() == before
    np.testing.assert_allclose(np.concatenate(answers)[good], wanted[good], atol=1e-6)


def test_of_the_state_weights_auto_counts_those_of_one_step(monkeypatch):
    plain = load_program(REFERENCE)
    scored = weighted(plain, steps=3000)
    assert scored.state_weights.size > KERNEL_WEIGHTS_MAX
    own = sum(weight.size for op, _ in operations_of(plain)[0] for weight in op.weights)
    one_step = plain.state_size * plain.outputs
    monkeypatch.setattr(engines, "KERNEL_ALWAYS_WEIGHTS_MAX", own + one_step)
    assert isinstance(stepper_for(scored), KernelStepper)
    monkeypatch.setattr(engines, "KERNEL_ALWAYS_WEIGHTS_MAX", own + one_step - 1)
    stepper = stepper_for(scored)
    assert isinstance(stepper, SmallWavesByKernel)
    assert stepper.columns == scored.columns
    verify_engine(scored, stepper)
