"""Aggregates of the scores of runs on tasks, after Agarwal et al. 2021 and their library rliable.

Each takes one array [..., runs] per task, so that it aggregates many resamples at once, and returns [...].
With one task, they are statistics of its runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dqn_runner.statistics.scores import FloatArray

Aggregate = Callable[[Sequence[FloatArray]], FloatArray]
"""A number from the scores [..., runs] of each task; it keeps the leading axes."""


def mean(tasks: Sequence[FloatArray]) -> FloatArray:
    """Mean over tasks of the mean over runs."""
    return np.mean([task.mean(axis=-1) for task in tasks], axis=0)


def median(tasks: Sequence[FloatArray]) -> FloatArray:
    """Median over tasks of the mean over runs; with a single task, the median over its runs.

    The mean over the runs of a single task would be `mean` under another name.
    """
    if len(tasks) == 1:
        return np.median(tasks[0], axis=-1)
    return np.median([task.mean(axis=-1) for task in tasks], axis=0)


def iqm(tasks: Sequence[FloatArray]) -> FloatArray:
    """Interquartile mean: the mean of the middle half of all runs of all tasks.

    A quarter of the weight is removed at each end. If that is not a whole number of scores, the outermost
    scores that remain are weighted by the part that remains of them. rliable removes whole scores instead,
    int(n / 4) at each end, so it gives the same value where the number of scores is a multiple of four.
    """
    scores = np.sort(_pooled(tasks), axis=-1)
    count = scores.shape[-1]
    cut = count / 4
    rank: FloatArray = np.arange(count, dtype=float)
    weight = np.minimum(rank + 1, count - cut) - np.maximum(rank, cut)
    used = weight > 0  # 0 * inf is NaN
    return np.asarray(scores[..., used] @ weight[used] / (count / 2))


def optimality_gap(threshold: float) -> Aggregate:
    """The amount by which runs miss the score `threshold` on average; 0 if all reach it.

    Scores above `threshold` count as `threshold`. The paper uses normalised scores and 1.
    """

    def gap(tasks: Sequence[FloatArray]) -> FloatArray:
        return threshold - np.minimum(_pooled(tasks), threshold).mean(axis=-1)

    return gap


def pooled_mean(tasks: Sequence[FloatArray]) -> FloatArray:
    """Mean of all runs of all tasks; differs from `mean` if tasks have different numbers of runs."""
    return _pooled(tasks).mean(axis=-1)


def _pooled(tasks: Sequence[FloatArray]) -> FloatArray:
    """The runs of all tasks as one axis, [..., runs]."""
    return tasks[0] if len(tasks) == 1 else np.concatenate(tasks, axis=-1)
