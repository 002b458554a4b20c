"""Aggregates of scores: values computed by hand, and those of scipy where it has the same formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dqn_runner.core.exceptions import UserError
from dqn_runner.statistics.aggregates import Aggregate, iqm, mean, median, optimality_gap, pooled_mean
from dqn_runner.statistics.scores import Scores, as_curves, as_pairs, as_tasks

ALL = [mean, median, iqm, pooled_mean, optimality_gap(3.0)]
TWO_TASKS = np.array([[1.0, 10.0], [2.0, 40.0], [6.0, 10.0]])
"""Scores [runs, tasks]; the means of the tasks are 3 and 20."""


def of(aggregate: Aggregate, scores: Scores) -> float:
    return float(aggregate(as_tasks(scores)))


def test_mean_is_over_tasks() -> None:
    assert of(mean, TWO_TASKS) == 11.5
    assert of(mean, {"a": [1.0, 2.0, 6.0], "b": [7.0]}) == 5.0
    assert of(pooled_mean, {"a": [1.0, 2.0, 6.0], "b": [7.0]}) == 4.0


def test_median_is_over_the_means_of_tasks() -> None:
    assert of(median, np.column_stack([TWO_TASKS, [100.0, 100.0, 100.0]])) == 20.0


def test_median_of_one_task_is_over_its_runs() -> None:
    assert of(median, [1.0, 2.0, 6.0]) == 2.0


def test_iqm_is_the_mean_of_the_middle_half_of_all_runs_of_all_tasks() -> None:
    assert of(iqm, [[0.0, 5.0], [2.0, 100.0]]) == 3.5
    assert of(iqm, [9.0, 0.0, 3.0]) == pytest.approx((0.25 * 0 + 3 + 0.25 * 9) / 1.5)
    assert of(iqm, [10.0, 1, 2, 3, 4, 5, 6, 7, 8, 900]) == pytest.approx((1.5 + 4 + 5 + 6 + 7 + 4) / 5)
    assert of(iqm, [-math.inf, 1.0, 3.0, math.inf]) == 2.0


@given(st.integers(1, 4).flatmap(lambda n: arrays(float, (4 * n, 3), elements=st.floats(-1e6, 1e6))))
def test_iqm_is_the_trimmed_mean_of_rliable_for_multiples_of_four(scores: np.ndarray) -> None:
    from scipy.stats import trim_mean  # late: its import takes a second

    assert of(iqm, scores) == pytest.approx(trim_mean(scores, 0.25, axis=None), abs=1e-6)


def test_optimality_gap_is_the_mean_shortfall() -> None:
    assert of(optimality_gap(1.0), [[0.5, 2.0], [0.9, 1.0]]) == pytest.approx((0.5 + 0.1) / 4)
    assert of(optimality_gap(475.0), [500.0, 480.0]) == 0.0


@pytest.mark.parametrize("aggregate", ALL)
def test_leading_axes_are_kept(aggregate: Aggregate) -> None:
    tasks = [np.arange(24.0).reshape(2, 3, 4) ** 2, -np.arange(12.0).reshape(2, 3, 2)]
    many = aggregate(tasks)
    assert many.shape == (2, 3)
    assert many[1, 2] == pytest.approx(float(aggregate([task[1, 2] for task in tasks])))


def test_curves_have_the_runs_last() -> None:
    curves = np.arange(24.0).reshape(3, 2, 4)
    first, second = as_curves(curves)
    assert first.shape == second.shape == (4, 3)
    assert first[3].tolist() == curves[:, 0, 3].tolist()
    (only,) = as_curves(curves[:, 1])
    assert only.tolist() == second.tolist()
    (named,) = as_curves({"task": curves[:, 1]})
    assert named.tolist() == second.tolist()


def test_tasks_of_two_agents_are_paired_by_name() -> None:
    ours, theirs = as_pairs({"a": [1.0], "b": [2.0]}, {"b": [20.0, 21.0], "a": [10.0]})
    assert [task.tolist() for task in ours] == [[1.0], [2.0]]
    assert [task.tolist() for task in theirs] == [[10.0], [20.0, 21.0]]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "there are no scores"),
        ([], "task number 0 has no scores"),
        ({"Pong": [1.0], "Qbert": []}, "task Qbert has no scores"),
        ({"Pong": [1.0, math.nan]}, "task Pong has a score that is NaN"),
        ({"Pong": [[1.0], [2.0]]}, "shape (2, 1)"),
        (np.zeros((2, 2, 2)), "shape (2, 2, 2)"),
        ({"Pong": [[1.0], [2.0, 3.0]]}, "their rows have different lengths"),
        ({"Pong": ["many"]}, "the scores are not numbers"),
    ],
)
def test_scores_without_a_meaning_are_rejected(scores: Scores, message: str) -> None:
    with pytest.raises(UserError) as error:
        as_tasks(scores)
    assert message in str(error.value)


def test_tasks_that_do_not_fit_are_rejected() -> None:
    with pytest.raises(UserError, match="different numbers of times"):
        as_curves({"a": [[1.0, 2.0]], "b": [[1.0]]})
    with pytest.raises(UserError, match="the tasks differ: b, c"):
        as_pairs({"a": [1.0], "b": [1.0]}, {"a": [1.0], "c": [1.0]})
