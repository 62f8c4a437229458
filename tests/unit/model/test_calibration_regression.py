"""The regression of final predictors on what is known: what it is, and when it is taken."""

from __future__ import annotations

import numpy as np
import pytest

from worker.model.calibration_regression import Ridge, choose, sums_of_products


def drawn(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Own predictor and four states (N, 5), of which the last state tells most of the final one (N, 1)."""
    random = np.random.default_rng(seed)
    known = random.standard_normal((count, 5)) * [1, 2, 3, 4, 5] + [0, 1, 2, 3, 4]
    return known, 0.3 * known[:, :1] - 0.5 * known[:, 4:] + 0.2 * random.standard_normal((count, 1))


def chosen(known: np.ndarray, final: np.ndarray):
    parts = np.arange(len(known)) % 5
    products = {part: sums_of_products(known[parts == part], final[parts == part]) for part in range(5)}
    return choose(known, final, parts, products), parts


def test_without_a_penalty_it_is_least_squares():
    known, final = drawn(200)
    found = Ridge.of(sums_of_products(known, final), 1, np.arange(5)).linear(1e-12)
    wanted, *_ = np.linalg.lstsq(np.concatenate([np.ones((200, 1)), known], axis=1), final, rcond=None)
    np.testing.assert_allclose(found.intercepts, wanted[0], atol=1e-8)
    np.testing.assert_allclose(found.slopes, wanted[1:], atol=1e-8)


def test_a_penalty_does_not_depend_on_the_columns_units():
    known, final = drawn(200)
    units = np.array([1, 1e-3, 1e3, 7, 0.2])
    one = Ridge.of(sums_of_products(known, final), 1, np.arange(5)).linear(0.3)
    other = Ridge.of(sums_of_products(known * units, final), 1, np.arange(5)).linear(0.3)
    np.testing.assert_allclose(one.of(known), other.of(known * units), atol=1e-8)


def test_columns_that_hardly_vary_have_no_slope():
    known, final = drawn(200)
    known[:, 2] = 1e4 + 1e-2 * known[:, 2]
    assert Ridge.of(sums_of_products(known, final), 1, np.arange(5)).linear(0.001).slopes[2] == 0


def test_what_tells_more_than_the_own_predictor_is_taken_and_tested_without_the_sequences_part():
    known, final = drawn(200)
    found, parts = chosen(known, final)
    assert np.abs(found.linear.of(known) - final).mean() < 0.3
    changed = final.copy()
    changed[parts == 0] += 100
    again, _ = chosen(known, changed)
    assert not np.allclose(again.linear.slopes, found.linear.slopes)
    other = chosen(known, np.where(parts[:, None] == 0, final + 1e-9, final))[0]
    np.testing.assert_allclose(other.without_own_part[parts == 0], found.without_own_part[parts == 0], atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_hardly_ever_taken_for_knowledge(seed):
    random = np.random.default_rng(seed)
    known = random.standard_normal((60, 40))
    final = known[:, :1] + random.standard_normal((60, 1))
    found, _ = chosen(known, final)
    unseen = random.standard_normal((2000, 40))
    excess = found.linear.of(unseen)[:, 0] - unseen[:, 0]
    assert np.sqrt((excess**2).mean()) < 0.7
