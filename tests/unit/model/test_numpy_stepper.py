from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.model.architectures import layer, program, programs
from worker.model import numpy_stepper
from worker.model.numpy_stepper import NumpyStepper

FLATTENED = [
    layer("LSTM", units=4, return_sequences=True),
    layer("Flatten"),
    layer("Dense", units=1, activation="sigmoid"),
]


def in_place(rows: int, state_size: int) -> np.ndarray:
    """States as the worker keeps them: a field of a structured array."""
    table = np.zeros(rows, np.dtype([("header", np.uint8, 20), ("state", np.float32, (state_size,))]))
    table["state"] = np.nan
    return table["state"]


def steps_of(slots: np.ndarray, timesteps: int) -> np.ndarray:
    """The 1-based step of each record; a stream starts again after its last."""
    seen: dict[int, int] = {}
    steps = []
    for slot in slots.tolist():
        seen[slot] = seen.get(slot, 0) % timesteps + 1
        steps.append(seen[slot])
    return np.array(steps, np.int32)


@settings(deadline=None, max_examples=60)
@given(programs(), st.data())
def test_any_batch_equals_one_record_at_a_time(compiled, data):
    slots = np.array(data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=40)), np.int64)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(slots)), max_size=3)) | {0, len(slots)})
    features = np.random.default_rng(1).standard_normal((len(slots), compiled.features)).astype(np.float32)
    steps = steps_of(slots, 5)
    stepper = NumpyStepper(compiled)
    batched, single = in_place(8, compiled.state_size), in_place(8, compiled.state_size)

    in_batches = [
        stepper.step_batch(slots[a:b], features[a:b], batched, steps[a:b]) for a, b in itertools.pairwise(cuts)
    ]
    one_by_one = [
        stepper.step_batch(slots[i : i + 1], features[i : i + 1], single, steps[i : i + 1]) for i in range(len(slots))
    ]

    np.testing.assert_allclose(np.concatenate(in_batches), np.concatenate(one_by_one), atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(batched, single, atol=1e-6, rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(programs())
def test_stepping_equals_the_float64_evaluation_of_the_whole_sequence(compiled):
    sequences, timesteps = 4, 5
    samples = np.random.default_rng(2).standard_normal((sequences, timesteps, compiled.features)).astype(np.float32)
    slots = np.tile(np.arange(sequences), timesteps)
    by_time = samples.transpose(1, 0, 2).reshape(-1, compiled.features)
    states = in_place(sequences, compiled.state_size)

    logits = NumpyStepper(compiled).step_batch(slots, by_time, states, steps_of(slots, timesteps))

    stepped = logits.reshape(timesteps, sequences, -1).transpose(1, 0, 2)
    expected = compiled.whole(samples)
    np.testing.assert_allclose(compiled.outputs_of(stepped), compiled.outputs_of(expected), atol=1e-6)


def test_blocks_of_many_streams_equal_one_block(monkeypatch):
    compiled = program(FLATTENED)
    slots = np.random.default_rng(3).integers(0, 20, 100)
    features = np.random.default_rng(4).standard_normal((100, 3)).astype(np.float32)
    whole, blocks = in_place(20, compiled.state_size), in_place(20, compiled.state_size)
    expected = NumpyStepper(compiled).step_batch(slots, features, whole, steps_of(slots, 5))
    monkeypatch.setattr(numpy_stepper, "ROWS_MAX", 7)

    logits = NumpyStepper(compiled).step_batch(slots, features, blocks, steps_of(slots, 5))

    np.testing.assert_allclose(logits, expected, atol=1e-6)
    np.testing.assert_allclose(blocks, whole, atol=1e-6)


def test_rows_of_other_slots_are_left_alone():
    compiled = program(FLATTENED)
    states = np.full((5, compiled.state_size), 7, np.float32)

    NumpyStepper(compiled).step_batch(np.array([3, 1]), np.ones((2, 3), np.float32), states, np.array([1, 1], np.int32))

    assert (states[[0, 2, 4]] == 7).all()
    assert (states[[1, 3]] != 7).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_stream_of_bad_numbers_answers_nan_and_no_other_stream_sees_it(poison):
    compiled = program(FLATTENED)
    features = np.ones((3, 3), np.float32)
    clean = in_place(3, compiled.state_size)
    mixed = in_place(3, compiled.state_size)
    steps = np.array([1, 1, 1], np.int32)
    expected = NumpyStepper(compiled).step_batch(np.arange(3), features, clean, steps)
    features[1] = [poison, 0, 0] if np.isnan(poison) else [poison, -poison, 0]

    logits = NumpyStepper(compiled).step_batch(np.arange(3), features, mixed, steps)

    assert np.isnan(logits[1]).all()
    np.testing.assert_allclose(logits[[0, 2]], expected[[0, 2]], atol=1e-6)


def test_step_one_forgets_what_the_row_held():
    compiled = program(FLATTENED)
    stepper = NumpyStepper(compiled)
    features = np.ones((1, 3), np.float32)
    first = np.array([1], np.int32)
    states = in_place(1, compiled.state_size)
    expected = stepper.step_batch(np.array([0]), features, states, first)

    assert stepper.step_batch(np.array([0]), features, states, first) == pytest.approx(expected)


def test_an_empty_batch_gives_no_logits():
    compiled = program(FLATTENED)
    empty = np.array([], np.int64)

    logits = NumpyStepper(compiled).step_batch(
        empty, np.empty((0, 3), np.float32), in_place(2, compiled.state_size), empty.astype(np.int32)
    )

    assert logits.shape == (0, 1)
