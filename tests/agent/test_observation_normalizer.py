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
def test_mean_and_variance_are_those_of_all_that_was_seen(data: Array, cut: int) -> None:
    """In whatever pieces it came."""
    parts = [part for part in (data[:cut], *np.split(data[cut:], max(1, len(data[cut:])))) if len(part)]
    state = after(parts).state_dict()
    assert state["count"] == len(data)
    np.testing.assert_allclose(state["mean"], data.mean(0, dtype=np.float64), rtol=1e-6, atol=1e-6)
    variance = data.var(0, dtype=np.float64)
    np.testing.assert_allclose(state["squares"] / len(data), variance, rtol=1e-6, atol=1e-5)


def test_a_large_mean_does_not_drown_a_small_variance() -> None:
    """The textbook difference of squares would give anything here."""
    data = 1e6 + np.random.default_rng(0).normal(scale=0.1, size=(1000, 2))
    state = after([row[None] for row in data]).state_dict()
    np.testing.assert_allclose(state["squares"] / 1000, data.var(0), rtol=1e-6)


def test_what_was_seen_gets_zero_mean_and_unit_variance() -> None:
    data = (5 + 3 * np.random.default_rng(0).normal(size=(1000, 4))).astype(np.float32)
    found = after([data])(data)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(0), 1, atol=1e-5)


def test_golden_numbers() -> None:
    """Mean 2 and variance 1."""
    normalizer = after([np.array([[1.0], [3.0]])])
    np.testing.assert_allclose(normalizer(np.array([[2.0], [4.0], [0.5]])), [[0.0], [2.0], [-1.5]], rtol=1e-6)


def test_outliers_are_cut_off_and_constants_stay_finite() -> None:
    normalizer = after([np.array([[0.0, 7.0], [2.0, 7.0]])])
    found = normalizer(np.array([[1e9, 7.0], [-1e9, 7.1]]))
    np.testing.assert_allclose(found, [[10.0, 0.0], [-10.0, 10.0]])
    assert np.isfinite(ObservationNormalizer((2,))(np.ones((1, 2)))).all()


def test_looking_changes_nothing() -> None:
    data = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    normalizer, before = after([data]), data.copy()
    first = normalizer(data)
    assert np.array_equal(normalizer(data), first)
    assert np.array_equal(data, before)


@pytest.mark.parametrize("shape", [(3,), (2, 4)])
def test_goes_on_exactly_from_a_state(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(4, *shape)).astype(np.float32) for _ in range(6)]
    whole, first, second = after(batches), after(batches[:3]), ObservationNormalizer(shape)
    second.update(batches[0])  # what it saw before does not count
    second.load_state_dict(first.state_dict())
    for batch in batches[3:]:
        second.update(batch)
    assert np.array_equal(second(batches[0]), whole(batches[0]))
    assert str(second.state_dict()) == str(whole.state_dict())
    assert first.state_dict()["count"] == 12  # the two share no memory
    assert not np.array_equal(first(batches[0]), second(batches[0]))
