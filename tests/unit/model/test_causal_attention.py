"""Attention with a causal mask: what is kept, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.model.random_model import TIMESTEPS, RandomModel
from worker.model.program import StepProgram

WIDTH, HEADS, SIZE = 3, 2, 4
CONFIG = {"num_heads": HEADS, "key_dim": SIZE}


@pytest.fixture
def model() -> RandomModel:
    return RandomModel(0, features=WIDTH, fixed=False)


def attended(model: RandomModel, class_name: str = "MultiHeadAttention", *, causal: Any = True, **config: Any) -> Any:
    """A call with the model's input as query and value."""
    return called(model, [model.input, model.input], class_name, {"use_causal_mask": causal}, **config)


def called(
    model: RandomModel,
    inputs: list[Any],
    class_name: str = "MultiHeadAttention",
    keywords: dict[str, Any] | None = None,
    **config: Any,
) -> Any:
    several = class_name == "MultiHeadAttention"
    one = [model.array(WIDTH, HEADS, SIZE), model.array(HEADS, SIZE)]
    weights = [*one, *one, *one, model.array(HEADS, SIZE, WIDTH), model.array(WIDTH)] if several else []
    value = model.add(class_name, inputs, weights, **({**CONFIG, **config} if several else config))
    model.call_with({"use_causal_mask": True} if keywords is None else keywords)
    return value


def finished(model: RandomModel, value: Any) -> StepProgram:
    return model.program(head(model, value))


def head(model: RandomModel, value: Any) -> Any:
    pooled = model.add("GlobalMaxPooling1D", [value], [])
    weights = [model.array(WIDTH, 1), model.array(1)]
    return model.add("Dense", [pooled], weights, units=1, activation="sigmoid")


def test_keys_and_values_of_all_heads_are_kept_for_every_step_and_each_step_is_exact(model):
    program = finished(model, attended(model))

    assert program.plan[0].state_floats == TIMESTEPS * 2 * HEADS * SIZE
    assert (program.exactness, program.exact_from) == ("prefix", 1)


@pytest.mark.parametrize("class_name", ["Attention", "AdditiveAttention"])
def test_values_that_are_also_the_keys_are_kept_once(model, class_name):
    one = finished(model, attended(model, class_name, use_scale=False))
    other = finished(model, called(model, [model.input] * 3, class_name, use_scale=False))

    assert one.plan[0].state_floats == TIMESTEPS * WIDTH
    assert other.plan[0].state_floats == TIMESTEPS * 2 * WIDTH


def test_query_value_and_key_may_be_given_by_name_in_any_order():
    def whole(by_name: bool) -> np.ndarray:
        model = RandomModel(0, features=WIDTH, fixed=False)
        names = ("query", "value", "key")
        inputs = {name: model.add("Rescaling", [model.input], [], scale=1.0 + at) for at, name in enumerate(names)}
        value = called(model, list(inputs.values()))
        if by_name:
            (query, of_value, key) = model.called_with()
            model.call_with({"key": key, "use_causal_mask": True, "value": of_value, "query": query}, [])
        samples = np.random.default_rng(1).standard_normal((2, TIMESTEPS, WIDTH))
        return finished(model, value).whole(samples)

    np.testing.assert_array_equal(whole(by_name=True), whole(by_name=False))


def without_mask(model):
    return attended(model, causal=False)


def own_mask(model):
    return called(model, [model.input] * 2, keywords={"use_causal_mask": True, "attention_mask": [[1]]})


def with_scores(model):
    return called(model, [model.input] * 2, keywords={"use_causal_mask": True, "return_attention_scores": True})


def of_a_last_step(model):
    last = model.add("GlobalMaxPooling1D", [model.input], [])
    return called(model, [last, last])


def of_other_lengths(model):
    return called(model, [model.input, model.add("Cropping1D", [model.input], [], cropping=[1, 0])])


def of_other_widths(model):
    narrow = model.add("Dense", [model.input], [model.array(WIDTH, 2), model.array(2)], units=2)
    return called(model, [model.input, narrow], "Attention", use_scale=False)


def of_masked(model):
    masked = model.add("Masking", [model.input], [])
    return called(model, [masked, masked])


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (without_mask, "attention without a causal mask needs the whole window: call it with use_causal_mask=True"),
        (lambda model: attended(model, causal=1), "use_causal_mask is 1, not true or false"),
        (own_mask, "it is called with 'attention_mask'"),
        (with_scores, "it is called with 'return_attention_scores'"),
        (of_a_last_step, "no sequence reaches it: set return_sequences=True in the layer before"),
        (of_other_lengths, "its inputs have different lengths"),
        (of_other_widths, "queries of 3 features meet keys of 2: give them one width"),
        (of_masked, "it would lose the mask: use Masking in front of recurrent layers"),
        (lambda model: attended(model, num_heads=0), "num_heads is 0, not a whole number"),
        (lambda model: attended(model, key_dim="4"), "key_dim is '4', not a whole number"),
        (lambda model: attended(model, value_dim=10**9), "value_dim is 1000000000, not a whole number"),
        (lambda model: attended(model, output_shape=[2, 3]), "output_shape is a list, not a whole number"),
        (lambda model: attended(model, output_shape=[9]), "its configuration implies weights of"),
        (lambda model: attended(model, use_bias=False), "its configuration implies weights of"),
        (lambda model: attended(model, use_gate=True), "use_gate is not supported: build the model without it"),
        (lambda model: attended(model, sliding_window=3), "sliding_window is not supported: build the model without"),
        (lambda model: attended(model, attention_axes=[2]), "it attends to something else than steps"),
        (lambda model: attended(model, "Attention", score_mode="x"), "score_mode is 'x', neither dot nor concat"),
        (lambda model: attended(model, "Attention", use_scale=True), "its configuration implies weights of [()]"),
    ],
)
def test_attention_that_cannot_be_stepped_is_refused_by_name_with_the_reason(model, build, said):
    culprit = build(model)
    text = model.refusal(head(model, culprit))
    assert f"layer '{culprit[0]}' (" in text
    assert said in text


def test_attention_without_a_number_of_steps_asks_for_it(model):
    output = head(model, attended(model))
    assert "does not fix the number of steps: set sequence" in model.refusal(output, None)
