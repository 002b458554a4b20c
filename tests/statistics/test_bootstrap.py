"""Intervals: compared with every possible resample, with scipy, and with a loop that resamples one by one."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from dqn_runner.core.exceptions import UserError
from dqn_runner.statistics import bootstrap
from dqn_runner.statistics.aggregates import Aggregate, iqm, mean, median, optimality_gap
from dqn_runner.statistics.bootstrap import (
    Estimate,
    estimate,
    performance_profile,
    probability_of_improvement,
    sample_efficiency,
)

SMALL = {"a": [1.0, 2.0, 7.0, 4.0], "b": [10.0, 30.0, 11.0]}


@pytest.mark.parametrize("settings", [{"confidence": 95}, {"confidence": -0.5}, {"resamples": 0}])
def test_impossible_settings_are_rejected(settings: Any) -> None:
    with pytest.raises(UserError, match="confidence must be between 0 and 1, and resamples at least 1"):
        estimate(SMALL, mean, **settings)


def all_resamples(scores: dict[str, list[float]], aggregate: Aggregate) -> np.ndarray:
    """The aggregate of each of the equally likely resamples, one by one."""
    choices = [itertools.product(task, repeat=len(task)) for task in scores.values()]
    return np.array(
        [float(aggregate([np.array(task) for task in tasks])) for tasks in itertools.product(*choices)]
    )


def assert_95_percent(every: np.ndarray, low: float, high: float) -> None:
    """The ends are quantiles of the distribution `every`, within the error of 20,000 draws."""
    for end, tail in ((low, 0.025), (high, 0.975)):
        assert np.mean(every < end - 1e-9) - 0.005 <= tail <= np.mean(every <= end + 1e-9) + 0.005


@pytest.mark.parametrize("aggregate", [mean, median, iqm, optimality_gap(9.0)])
def test_interval_has_the_quantiles_of_all_possible_resamples(aggregate: Aggregate) -> None:
    found = estimate(SMALL, aggregate, resamples=20_000)
    assert_95_percent(all_resamples(SMALL, aggregate), found.low, found.high)


def test_interval_agrees_with_scipy() -> None:
    from scipy import stats  # late: its import takes a second

    scores = stats.norm.ppf((np.arange(12) + 0.5) / 12)
    theirs = stats.bootstrap((scores,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    ours = estimate(scores, mean)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.02)


def test_runs_of_a_task_are_not_resampled_into_another() -> None:
    found = estimate({"constant": [5.0] * 4, "other": [1.0] * 3}, mean)
    assert found == Estimate(3.0, 3.0, 3.0)


def test_confidence_is_the_share_between_the_ends() -> None:
    every = all_resamples(SMALL, mean)
    found = estimate(SMALL, mean, confidence=0.5, resamples=20_000)
    assert np.mean((every >= found.low) & (every <= found.high)) == pytest.approx(0.5, abs=0.02)


def test_interval_is_a_function_of_scores_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    first = estimate(SMALL, mean, resamples=500)
    assert estimate(SMALL, mean, resamples=500) == first
    assert estimate(SMALL, mean, resamples=500, seed=1) != first
    one_task = SMALL["a"]
    whole = estimate(one_task, mean, resamples=500)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 100)
    assert estimate(one_task, mean, resamples=500) == whole


def test_single_run_has_no_interval() -> None:
    found = estimate({"a": [3.0], "b": [1.0, 5.0]}, mean)
    assert found.value == 3.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    curve = sample_efficiency([[1.0, 2.0]], mean)
    assert curve.value.tolist() == [1.0, 2.0]
    assert np.isnan(curve.low).all()


def test_improvement_counts_pairs_and_half_of_equal_ones() -> None:
    found = probability_of_improvement({"a": [1.0, 2.0], "b": [5.0]}, {"b": [5.0], "a": [0.0, 2.0, 3.0]})
    assert found.value == pytest.approx(((1 + 1.5) / 6 + 0.5) / 2)


def test_improvement_is_the_normalised_mann_whitney_statistic() -> None:
    from scipy import stats  # late: its import takes a second

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (11, 3)).astype(float), rng.integers(0, 9, (7, 3)).astype(float)
    u = [stats.mannwhitneyu(x[:, task], y[:, task], alternative="greater").statistic for task in range(3)]
    assert probability_of_improvement(x, y).value == pytest.approx(np.mean(u) / (11 * 7))


def test_improvement_resamples_the_runs_of_both() -> None:
    x, y = [1.0, 4.0, 6.0], [2.0, 3.0, 7.0]
    every = [
        np.mean([a > b for a in xs for b in ys])
        for xs in itertools.product(x, repeat=3)
        for ys in itertools.product(y, repeat=3)
    ]
    found = probability_of_improvement(x, y, resamples=20_000)
    assert_95_percent(np.array(every), found.low, found.high)


def test_profile_is_the_fraction_of_runs_above_each_threshold() -> None:
    scores = [[1.0, 10.0], [2.0, 0.0]]
    found = performance_profile(scores, [-1.0, 1.0, 2.0, 10.0], resamples=20_000)
    assert found.value.tolist() == [1.0, 0.5, 0.25, 0.0]
    assert (found.low[0], found.high[0]) == (1.0, 1.0)
    for point, threshold in enumerate([-1.0, 1.0, 2.0, 10.0]):
        above = {str(t): [float(run[t] > threshold) for run in scores] for t in range(2)}
        assert_95_percent(all_resamples(above, mean), found.low[point], found.high[point])


def test_sample_efficiency_resamples_whole_runs() -> None:
    """Here all runs rise by the same amount, and so must each resample and the band."""
    curves = np.array([[1.0, 11.0], [2.0, 12.0], [9.0, 19.0], [4.0, 14.0], [5.0, 15.0]])
    found = sample_efficiency(curves, iqm)
    assert found.value.tolist() == pytest.approx([3.7, 13.7])
    assert found.low[1] - found.low[0] == pytest.approx(10.0)
    assert found.high[1] - found.high[0] == pytest.approx(10.0)
    at_first = estimate(curves[:, 0], iqm, resamples=bootstrap.BAND_RESAMPLES)
    assert (found.low[0], found.high[0]) == pytest.approx((at_first.low, at_first.high))


def test_sample_efficiency_of_several_tasks_is_the_aggregate_of_all() -> None:
    curves = np.random.default_rng(0).normal(size=(5, 3, 4))
    found = sample_efficiency(curves, iqm)
    for time in range(4):
        alone = estimate(curves[:, :, time], iqm, resamples=bootstrap.BAND_RESAMPLES)
        assert (found.value[time], found.low[time], found.high[time]) == pytest.approx(alone)


def test_ends_of_an_interval_may_be_infinite() -> None:
    """The interquartile mean ignores a score that is infinite, but not every resample can."""
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, math.inf], iqm, resamples=2000)
    assert (found.value, found.high) == (4.5, math.inf)
    assert math.isfinite(found.low)


def test_a_profile_needs_thresholds() -> None:
    with pytest.raises(UserError, match="needs thresholds"):
        performance_profile([1.0, 2.0], [])


def test_scores_that_are_masked_or_of_two_tasks_with_one_name_are_rejected() -> None:
    masked = np.ma.masked_array([1.0, 2.0, 100.0], mask=[0, 0, 1])
    for scores in (masked, {"task": masked}):
        with pytest.raises(UserError, match="the scores are a masked array"):
            estimate(scores, mean)
    with pytest.raises(UserError, match="two tasks have the same name: 1, 1"):
        estimate({1: [1.0, 2.0], "1": [3.0, 4.0]}, mean)  # type: ignore[dict-item]
