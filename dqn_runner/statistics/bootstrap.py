"""Stratified bootstrap intervals: the runs of each task are resampled, independently of those of other tasks.

After Agarwal et al. 2021. An interval is a function of the scores, their order and a seed. With few runs it
is too narrow: of 95 % intervals for the mean of normal scores, 75 % contain the expected score with 3 runs,
83 % with 5, and 91 % with 10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.rng import stream
from dqn_runner.statistics.aggregates import Aggregate, pooled_mean
from dqn_runner.statistics.scores import FloatArray, Scores, as_curves, as_pairs, as_tasks

RESAMPLES = 50_000
"""Resamples for the interval of an aggregate, as in rliable."""
BAND_RESAMPLES = 2_000
"""Resamples for the band of a curve, as in rliable, and for a probability of improvement."""
_AT_ONCE = 2_000_000
"""Numbers that are resampled at once, which limits memory to some tens of megabytes."""

Groups = Sequence[Sequence[FloatArray]]
"""The scores [..., runs] of each task, of one agent or of several."""


class Estimate(NamedTuple):
    """A number with its confidence interval."""

    value: float
    low: float
    """NaN, as `high`, if a task has a single run, which says nothing about the spread."""
    high: float


class Curve(NamedTuple):
    """Numbers with pointwise confidence intervals, each of shape [points]."""

    value: FloatArray
    low: FloatArray
    high: FloatArray


def estimate(
    scores: Scores,
    aggregate: Aggregate,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """`aggregate` of the scores of all runs; raises UserError for scores that `as_tasks` rejects."""
    tasks = as_tasks(scores)
    size = sum(task.size for task in tasks)
    numbers = _bootstrap([tasks], lambda groups: aggregate(groups[0]), size, confidence, resamples, seed)
    return Estimate(*map(float, numbers))


def probability_of_improvement(
    scores: Scores,
    baseline: Scores,
    *,
    confidence: float = 0.95,
    resamples: int = BAND_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean over tasks of the probability that a run scores higher than a run of `baseline`.

    Equal scores count half, so for a task it is the Mann-Whitney U statistic divided by the number of pairs.
    The runs of both are resampled, each on its own. Raises UserError if the two have different tasks.
    """
    ours, theirs = as_pairs(scores, baseline)
    size = sum(mine.size * other.size for mine, other in zip(ours, theirs, strict=True))
    numbers = _bootstrap([ours, theirs], _improvement, size, confidence, resamples, seed)
    return Estimate(*map(float, numbers))


def performance_profile(
    scores: Scores,
    thresholds: Sequence[float] | FloatArray,
    *,
    confidence: float = 0.95,
    resamples: int = BAND_RESAMPLES,
    seed: int = 0,
) -> Curve:
    """The fraction of runs with a score above each of `thresholds`; it shows all quantiles at once.

    Raises UserError if thresholds are missing, or for scores that `as_tasks` rejects.
    """
    if len(thresholds) == 0:
        raise UserError("a performance profile needs thresholds, such as the scores themselves")
    levels = np.asarray(thresholds, float)[:, None]
    above = [(task > levels).astype(float) for task in as_tasks(scores)]
    return _curve(above, pooled_mean, confidence, resamples, seed)


def sample_efficiency(
    scores: Scores,
    aggregate: Aggregate,
    *,
    confidence: float = 0.95,
    resamples: int = BAND_RESAMPLES,
    seed: int = 0,
) -> Curve:
    """`aggregate` at each time of curves: [runs, times], [runs, tasks, times], or a mapping to [runs, times].

    Whole runs are resampled, so that all points of a resample belong to the same runs.
    """
    return _curve(as_curves(scores), aggregate, confidence, resamples, seed)


def _curve(
    tasks: Sequence[FloatArray], aggregate: Aggregate, confidence: float, resamples: int, seed: int
) -> Curve:
    size = sum(task.size for task in tasks)
    return Curve(*_bootstrap([tasks], lambda groups: aggregate(groups[0]), size, confidence, resamples, seed))


def _improvement(groups: Groups) -> FloatArray:
    ours, theirs = groups
    by_task: list[FloatArray] = []
    for mine, other in zip(ours, theirs, strict=True):
        x, y = mine[..., :, None], other[..., None, :]
        by_task.append(((x > y) + 0.5 * (x == y)).mean(axis=(-2, -1)))
    return np.mean(by_task, axis=0)


def _bootstrap(
    groups: Groups,
    statistic: Callable[[Groups], FloatArray],
    size: int,
    confidence: float,
    resamples: int,
    seed: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`statistic` [...] of scores [..., runs], and the ends of its percentile interval.

    `size` is how many numbers the statistic of one resample handles.
    """
    if not 0 < confidence < 1 or resamples < 1:
        raise UserError(
            f"confidence must be between 0 and 1, and resamples at least 1; got {confidence} and {resamples}"
        )
    value = statistic(groups)
    if any(task.shape[-1] == 1 for group in groups for task in group):
        unknown = np.full_like(value, np.nan)
        return value, unknown, unknown
    rng = stream(seed, "bootstrap")
    found = [
        statistic([[_resample(task, count, rng) for task in group] for group in groups])
        for count in _portions(resamples, max(1, _AT_ONCE // size))
    ]
    tail = (1 - confidence) / 2
    every = np.concatenate(found, axis=-1)
    method = "linear" if np.isfinite(every).all() else "nearest"  # nothing lies between infinite numbers
    low, high = np.quantile(every, [tail, 1 - tail], axis=-1, method=method)
    return value, low, high


def _resample(task: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """`count` resamples of the runs of a task: [..., runs] -> [..., count, runs]."""
    runs = task.shape[-1]
    return task[..., rng.integers(runs, size=(count, runs))]


def _portions(total: int, most: int) -> Iterator[int]:
    """`total` as a sum of numbers of at most `most`."""
    for start in range(0, total, most):
        yield min(most, total - start)
