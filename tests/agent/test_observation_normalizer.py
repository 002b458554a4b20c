"""Normalisation of observations by their running mean and variance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dqn_runner.agent.observation_normalizer import ObservationNormalizer
from dqn_runner.core.types import Array

NUMBERS = st.floats(-1e3, 1e3, width=32)


def after(batches: list[Array]) -> ObservationNormalizer:
    normalizer = ObservationNormalizer(batches[0].shape[1:])
    for batch in batches:
        normalizer.update(batch)
    return normalizer


@given(
    data=arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=NUMBERS),
    cut=st.integers(0, 30),
)
def test_mean_and_variance_are_those_of_all_observations(data: Array, cut: int) -> None:
    """Independently of how they are divided into batches."""
    parts = [part for part in (data[:cut], *np.split(data[cut:], max(1, len(data[cut:])))) if len(part)]
    state = after(parts).state_dict()
    assert state["count"] == len(data)
    np.testing.assert_allclose(state["mean"], data.mean(0, dtype=np.float64), rtol=1e-6, atol=1e-6)
    variance = data.var(0, dtype=np.float64)
    np.testing.assert_allclose(state["squares"] / len(data), variance, rtol=1e-6, atol=1e-5)


def test_a_small_variance_is_exact_despite_a_large_mean() -> None:
    """The mean of squares minus the square of the mean would lose all digits."""
    data = 1e6 + np.random.default_rng(0).normal(scale=0.1, size=(1000, 2))
    state = after([row[None] for row in data]).state_dict()
    np.testing.assert_allclose(state["squares"] / 1000, data.var(0), rtol=1e-6)


def test_normalised_observations_have_zero_mean_and_unit_variance() -> None:
    data = (5 + 3 * np.random.default_rng(0).normal(size=(1000, 4))).astype(np.float32)
    found = after([data])(data)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(0), 1, atol=1e-5)


def test_normalised_observations_equal_numbers_by_hand() -> None:
    """With mean 2 and variance 1."""
    normalizer = after([np.array([[1.0], [3.0]])])
    np.testing.assert_allclose(normalizer(np.array([[2.0], [4.0], [0.5]])), [[0.0], [2.0], [-1.5]], rtol=1e-6)


def test_outliers_are_clipped_and_constant_features_stay_finite() -> None:
    normalizer = after([np.array([[0.0, 7.0], [2.0, 7.0]])])
    found = normalizer(np.array([[1e9, 7.0], [-1e9, 7.1]]))
    np.testing.assert_allclose(found, [[10.0, 0.0], [-10.0, 10.0]])
    assert np.isfinite(ObservationNormalizer((2,))(np.ones((1, 2)))).all()


def test_normalising_changes_neither_the_statistics_nor_the_input() -> None:
    data = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    normalizer, before = after([data]), data.copy()
    first = normalizer(data)
    assert np.array_equal(normalizer(data), first)
    assert np.array_equal(data, before)


@pytest.mark.parametrize("shape", [(3,), (2, 4)])
def test_a_normalizer_restored_from_its_state_continues_identically(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(4, *shape)).astype(np.float32) for _ in range(6)]
    whole, first, second = after(batches), after(batches[:3]), ObservationNormalizer(shape)
    second.update(batches[0])  # loading a state replaces earlier statistics
    second.load_state_dict(first.state_dict())
    for batch in batches[3:]:
        second.update(batch)
    assert np.array_equal(second(batches[0]), whole(batches[0]))
    assert str(second.state_dict()) == str(whole.state_dict())
    assert first.state_dict()["count"] == 12  # the two share no memory
    assert not np.array_equal(first(batches[0]), second(batches[0]))
