"""A program's scores of the state, against the same program without state weights, one record at a time."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.model.architectures import layer, program
from tests.unit.model.random_graphs import random_program
from worker.model.contract import drawn_samples
from worker.model.program import StepProgram

STREAMS, TIMESTEPS, WEIGHTED = 6, 6, 4
CHAIN = [
    layer("LSTM", units=4, return_sequences=True),
    layer("GRU", units=3, return_sequences=True, reset_after=True),
    layer("Flatten"),
    layer("Dense", units=2, activation="softmax"),
]
MASKED_BRANCHES = (5, 6, 15, 39)
"""Seeds of random graphs with branches, masks and strides."""
PROGRAMS = [pytest.param(lambda: program(CHAIN, timesteps=TIMESTEPS), id="chain")] + [
    pytest.param(lambda seed=seed: random_program(seed), id=f"graph {seed}") for seed in MASKED_BRANCHES
]


def weighted(compiled: StepProgram, steps: int = WEIGHTED, scale: float = 0.3) -> StepProgram:
    """With random state weights of so many steps."""
    shape = (steps, compiled.state_size, compiled.outputs)
    return compiled.with_state_weights(np.random.default_rng(1).normal(0, scale, shape).astype(np.float32))


def mixed_records(compiled: StepProgram, seed: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slots, features and steps of whole sequences: streams at different steps, one more of nothing but NaN."""
    samples = drawn_samples(compiled, STREAMS + 1, TIMESTEPS, np.random.default_rng(seed))
    samples[STREAMS] = np.nan
    slots = np.random.default_rng(seed).permutation(np.repeat(np.arange(STREAMS + 1), TIMESTEPS))
    steps = np.zeros(len(slots), np.int32)
    for slot in range(STREAMS + 1):
        steps[slots == slot] = np.arange(1, TIMESTEPS + 1)
    return slots, samples[slots, steps - 1], steps


def by_hand(scored: StepProgram, plain: StepProgram, slots, features, steps) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2K): the logits of `plain`, and the float64 product of its state and the weights; the last states (slots, S).
    NaN in the state is NaN in the scores."""
    states = np.zeros((slots.max() + 1, plain.state_size), np.float32)
    wanted = np.zeros((len(slots), 2 * plain.outputs))
    for i, slot in enumerate(slots.tolist()):
        with np.errstate(all="ignore"):
            logits, after = plain.step(features[i : i + 1], states[[slot]], steps[i : i + 1])
        states[slot] = after[0]
        wanted[i, : plain.outputs] = logits[0]
        if steps[i] <= len(scored.state_weights):
            weights = scored.state_weights[steps[i] - 1].astype(np.float64)
            wanted[i, plain.outputs :] = after[0].astype(np.float64) @ weights
    return wanted, states


@pytest.mark.parametrize("make", PROGRAMS)
def test_a_step_answers_with_the_logits_and_the_scores_of_the_state_after_it(make):
    plain, scored = make(), weighted(make())
    slots, features, steps = mixed_records(plain)
    wanted, _ = by_hand(scored, plain, slots, features, steps)
    states = np.full((STREAMS + 1, plain.state_size), np.nan, np.float32)
    begun = [np.flatnonzero(slots == slot) for slot in range(STREAMS + 1)]
    for turn in range(TIMESTEPS + STREAMS):  # stream i begins i turns late
        batch = [(slot, begun[slot][turn - slot]) for slot in range(STREAMS + 1) if 0 <= turn - slot < TIMESTEPS]
        rows, records = np.array(batch).T
        with np.errstate(all="ignore"):
            by_graph, parts = scored.graph(np, features[records], np.nan_to_num(states[rows]), steps[records])
            answers, states[rows] = scored.step(features[records], states[rows], steps[records])
        assert answers.shape == by_graph.shape == (len(records), scored.columns)
        assert answers.dtype == np.float32
        good = rows != STREAMS
        np.testing.assert_allclose(answers[good], wanted[records][good], atol=1e-6)
        np.testing.assert_allclose(by_graph[good], wanted[records][good], atol=1e-6)
        np.testing.assert_allclose(np.concatenate(parts, axis=1)[good], states[rows][good], atol=1e-6)
        assert (answers[steps[records] > WEIGHTED, plain.outputs :] == 0).all()


def test_state_weights_change_nothing_but_the_columns_of_an_answer():
    plain = program(CHAIN, timesteps=TIMESTEPS)
    scored = weighted(plain)
    samples = drawn_samples(plain, 2, TIMESTEPS, np.random.default_rng(1))
    state, first = np.zeros((2, plain.state_size), np.float32), np.ones(2, np.int32)

    assert (plain.columns, scored.columns) == (2, 4)
    assert (scored.outputs, scored.state_size, scored.fingerprint) == (2, plain.state_size, plain.fingerprint)
    assert plain.step(samples[:, 0], state, first)[0].shape == (2, 2)
    assert plain.state_weights is None
    logits = scored.step(samples[:, 0], state, first)[0][:, :2]
    assert logits.tobytes() == plain.step(samples[:, 0], state, first)[0].tobytes()
    assert scored.outputs_of(logits).tobytes() == plain.outputs_of(logits).tobytes()
    assert scored.whole(samples).tobytes() == plain.whole(samples).tobytes()


@pytest.mark.parametrize("change", [(0, 1, 0), (0, 0, 1), (-WEIGHTED, 0, 0)])
def test_state_weights_of_another_shape_are_refused(change):
    compiled = program(CHAIN, timesteps=TIMESTEPS)
    shape = np.array([WEIGHTED, compiled.state_size, compiled.outputs]) + change

    with pytest.raises(ValueError, match="state weights have the shape"):
        compiled.with_state_weights(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="state weights have the shape"):
        compiled.with_state_weights(np.zeros((compiled.state_size, compiled.outputs), np.float32))
