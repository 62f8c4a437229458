"""Layers that are stepped together with the one after them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.model.random_model import TIMESTEPS, RandomModel
from worker.model.numpy_stepper import NumpyStepper
from worker.model.program import StepProgram

WIDTH = 3


@pytest.fixture
def model() -> RandomModel:
    return RandomModel(0, features=WIDTH, fixed=False)


def head(model: RandomModel, value: Any, width: int = WIDTH) -> StepProgram:
    return model.program(dense(model, value, width))


def dense(model: RandomModel, value: Any, width: int = WIDTH, timesteps: int = 1) -> Any:
    weights = [model.array(timesteps * width, 1), model.array(1)]
    return model.add("Dense", [value], weights, units=1, activation="sigmoid")


def lstm(model: RandomModel, value: Any, every: bool = False) -> Any:
    weights = [model.array(WIDTH, 4 * WIDTH), model.array(WIDTH, 4 * WIDTH), model.array(4 * WIDTH)]
    return model.add("LSTM", [value], weights, units=WIDTH, return_sequences=every)


def convolution(model: RandomModel, value: Any, **config: Any) -> Any:
    weights = [model.array(3, WIDTH, WIDTH), model.array(WIDTH)]
    return model.add("Conv1D", [value], weights, filters=WIDTH, kernel_size=[3], **config)


def softmax_over_time(model: RandomModel, value: Any, width: int = 1) -> Any:
    scores = model.add("Dense", [value], [model.array(WIDTH, width), model.array(width)], units=width)
    return model.add("Softmax", [scores], [], axis=1)


def stepped(program: StepProgram, samples: np.ndarray) -> np.ndarray:
    """(N, T, F) → logits (N, T, K)."""
    stepper, count = NumpyStepper(program), len(samples)
    states = np.full((count, program.state_size), np.nan, np.float32)
    steps = np.arange(1, samples.shape[1] + 1, dtype=np.int32)
    logits = [
        stepper.step_batch(np.arange(count), samples[:, step - 1], states, np.full(count, step, np.int32))
        for step in steps
    ]
    return np.stack(logits, axis=1)


def samples(count: int = 2) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((count, TIMESTEPS, WIDTH)).astype(np.float32)


def test_zeros_before_a_valid_convolution_make_it_a_causal_one():
    def convolved(padding: str) -> StepProgram:
        model = RandomModel(0, features=WIDTH, fixed=False)
        value = model.input
        if padding == "valid":
            value = model.add("ZeroPadding1D", [value], [], padding=[2, 0])
        return head(model, lstm(model, convolution(model, value, padding=padding)))

    padded, causal = convolved("valid"), convolved("causal")
    assert padded.exact_from == causal.exact_from == 1
    assert padded.state_size == causal.state_size
    np.testing.assert_array_equal(stepped(padded, samples()), stepped(causal, samples()))


def test_no_zeros_are_no_padding(model):
    padded = model.add("ZeroPadding1D", [model.input], [], padding=[0, 0])
    assert head(model, lstm(model, padded)).exact_from == 1


def test_the_cell_of_an_rnn_is_the_layer_of_its_name():
    def recurrent(class_name: str, **config: Any) -> StepProgram:
        model = RandomModel(0, features=WIDTH, fixed=False)
        weights = [model.array(WIDTH, 4 * WIDTH), model.array(WIDTH, 4 * WIDTH), model.array(4 * WIDTH)]
        return head(model, model.add(class_name, [model.input], weights, return_sequences=False, **config))

    def cell(name: str) -> dict[str, Any]:
        return {"class_name": "LSTMCell", "config": {"units": WIDTH, "name": name}}

    one, layer = recurrent("RNN", cell=cell("a")), recurrent("LSTM", units=WIDTH)
    np.testing.assert_array_equal(stepped(one, samples()), stepped(layer, samples()))
    assert one.fingerprint == recurrent("RNN", cell=cell("b")).fingerprint


def test_the_fingerprint_changes_with_the_step_that_is_taken_out():
    def taken(step: int) -> str:
        model = RandomModel(0, features=WIDTH, fixed=False)
        everything = {"class_name": "__slice__", "config": {"start": None, "stop": None, "step": None}}
        return head(model, model.add("GetItem", [model.input], [], [everything, step])).fingerprint

    assert len({taken(step) for step in (-2, -1, 1, 2)}) == 4


def test_a_cropped_end_makes_the_answer_lag(model):
    cropped = model.add("Cropping1D", [model.input], [], cropping=[1, 2])
    program = head(model, model.add("GlobalMaxPooling1D", [cropped], []))
    given = samples()
    later = given.copy()
    later[:, -2:] = 9

    assert program.exact_from == 4
    np.testing.assert_array_equal(stepped(program, given)[:, -1], stepped(program, later)[:, -1])


def test_attention_pooling_is_exact_at_every_step_and_keeps_three_numbers_more_than_the_average(model):
    weighted = model.add("Multiply", [softmax_over_time(model, model.input), model.input], [])
    program = head(model, model.add("Sum", [weighted], [], axis=1))

    assert program.exactness == "prefix"
    assert program.exact_from == 1
    assert program.state_size == WIDTH + 2


def test_attention_pooling_of_scores_beyond_the_range_of_exp_is_finite(model):
    steep = model.add("Rescaling", [model.input], [], scale=1e4)
    weights = softmax_over_time(model, steep)
    weighted = model.add("Multiply", [weights, model.input], [])
    program = head(model, model.add("Sum", [weighted], [], axis=1))

    given = samples()
    assert np.isfinite(stepped(program, given)).all()
    np.testing.assert_allclose(stepped(program, given), program.whole(given), atol=1e-6)


def test_what_joins_a_flattened_sequence_is_exact_at_the_last_step_only(model):
    sequence = lstm(model, model.input, every=True)
    joined = model.add(
        "Concatenate",
        [model.add("Flatten", [sequence], []), lstm(model, sequence), model.add("Flatten", [sequence], [])],
        [],
    )
    program = head(model, joined, (2 * TIMESTEPS + 1) * WIDTH)

    assert program.exactness == "end"
    assert program.plan[-1].exact == f"step {TIMESTEPS}"
    assert [row.layer for row in program.plan][-4:] == ["layer_6/1", "layer_6/2", "layer_6/3", "layer_6"]


def test_a_joined_flattened_sequence_without_a_number_of_steps_asks_for_it(model):
    flat = model.add("Flatten", [model.input], [])
    joined = model.add("Concatenate", [flat, lstm(model, model.input)], [])
    output = dense(model, joined, (TIMESTEPS + 1) * WIDTH)
    assert "does not fix the number of steps: set sequence" in model.refusal(output, None)


def test_batch_normalization_over_time_without_a_number_of_steps_asks_for_it(model):
    weights = [*(model.array(TIMESTEPS) for _ in range(3)), model.positive(TIMESTEPS)]
    normalised = model.add("BatchNormalization", [model.input], weights, axis=1)
    output = dense(model, lstm(model, normalised))
    assert "does not fix the number of steps: set sequence" in model.refusal(output, None)


# ---- refusals: what follows, how it is reached, and what is said


def padded(model: RandomModel) -> Any:
    return model.add("ZeroPadding1D", [model.input], [], padding=[2, 0])


def joined(model: RandomModel) -> Any:
    return model.add("Concatenate", [model.add("Flatten", [model.input], []), lstm(model, model.input)], [])


def weights(model: RandomModel) -> Any:
    return softmax_over_time(model, model.input)


def weighted(model: RandomModel) -> Any:
    return model.add("Multiply", [weights(model), model.input], [])


UNFINISHED = {
    padded: "zeros before a sequence must be followed by a convolution or pooling: use Conv1D",
    joined: "must be followed by Dense: put Dense right behind it",
    weights: "must be multiplied with a sequence, and that summed over time: end the attention in Multiply",
    weighted: "must be summed over time: end the attention in a sum over axis=1",
}


@pytest.mark.parametrize(("begin", "said"), UNFINISHED.items(), ids=lambda each: getattr(each, "__name__", ""))
@pytest.mark.parametrize("class_name", ["LSTM", "RNN", "Flatten", "GlobalMaxPooling1D", "Masking", "MyLayer"])
def test_what_does_not_finish_an_unfinished_value_is_refused_by_name(model, begin, said, class_name):
    cell = {"class_name": "LSTMCell", "config": {"units": 2}}
    culprit = model.add(class_name, [begin(model)], [], units=2, cell=cell)
    text = model.refusal(dense(model, culprit))
    assert f"layer '{culprit[0]}' ({class_name}) cannot be stepped" in text
    assert said in text


@pytest.mark.parametrize(("begin", "said"), UNFINISHED.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_an_unfinished_value_is_no_output(model, begin, said):
    text = model.refusal(begin(model))
    assert "random.keras ends too early" in text
    assert said in text


def zeros_and_causal(model):
    return convolution(model, padded(model), padding="causal")


def too_many_zeros(model):
    return convolution(model, model.add("ZeroPadding1D", [padded(model)], [], padding=[1, 0]))


def zeros_and_a_branch(model):
    return model.add("Add", [padded(model), model.input], [])


def other_widths(model):
    return model.add("Multiply", [softmax_over_time(model, model.input, 2), model.input], [])


def other_lengths(model):
    return model.add("Multiply", [weights(model), convolution(model, model.input)], [])


def masked_scores(model):
    return softmax_over_time(model, model.add("Masking", [model.input], []))


def masked_values(model):
    return model.add("Multiply", [weights(model), model.add("Masking", [model.input], [])], [])


def sum_over_features(model):
    return model.add("Sum", [weighted(model)], [], axis=-1)


def sum_that_keeps_time(model):
    return model.add("Sum", [weighted(model)], [], axis=1, keepdims=True)


def normalised_dot(model):
    return model.add("Dot", [weights(model), model.input], [], axes=1, normalize=True)


def dot_over_features(model):
    return model.add("Dot", [weights(model), model.input], [], axes=2)


def joined_with_a_sequence(model):
    return model.add("Concatenate", [model.add("Flatten", [model.input], []), model.input], [])


def softmax_of_joined(model):
    return model.add("Activation", [joined(model)], [], activation="softmax")


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (zeros_and_causal, "4 zeros before the sequence are more than its window reaches back"),
        (too_many_zeros, "3 zeros before the sequence are more than its window reaches back: pad by at most 2"),
        (zeros_and_a_branch, "zeros before a sequence must be followed by"),
        (other_widths, "2 weights a step meet 3 features: give them one width"),
        (other_lengths, "its inputs have different lengths: give its branches the same strides"),
        (masked_scores, "it would lose the mask: use Masking in front of recurrent layers"),
        (masked_values, "it would lose the mask: use Masking in front of recurrent layers"),
        (sum_over_features, "its axis is not time: reduce over axis=1"),
        (sum_that_keeps_time, "it keeps the dimension of time: build the model without keepdims"),
        (normalised_dot, "not a sum over time with one weight a step: multiply, and sum"),
        (dot_over_features, "not a sum over time with one weight a step: multiply, and sum"),
        (joined_with_a_sequence, "its inputs are of different kinds (flat and sequence)"),
        (softmax_of_joined, "a softmax over all steps needs all of them"),
    ],
)
def test_groups_of_layers_that_cannot_be_stepped_are_refused_by_name_with_the_reason(model, build, said):
    culprit = build(model)
    text = model.refusal(dense(model, culprit))
    assert f"layer '{culprit[0]}" in text
    assert said in text
