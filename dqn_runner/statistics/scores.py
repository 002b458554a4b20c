"""The scores that the statistics are of: one array of runs for each task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dqn_runner.core.exceptions import UserError

FloatArray = npt.NDArray[np.float64]

Scores = Mapping[str, Any] | npt.ArrayLike
"""Scores of runs: [runs] for one task, [runs, tasks], or a mapping from each task to its [runs].

Only in a mapping, tasks may have different numbers of runs. Curves have one more axis, time, at the end.
"""


def as_tasks(scores: Scores) -> list[FloatArray]:
    """The scores [runs] of each task.

    Raises UserError if there are none, or if a score is NaN or masked: a run without a score must be repeated
    or reported, because leaving it out would change what the statistics are of.
    """
    return list(_by_task(scores, 1).values())


def as_curves(scores: Scores) -> list[FloatArray]:
    """The scores [times, runs] of each task.

    Raises UserError as `as_tasks`, and if tasks have different numbers of times.
    """
    tasks = [task.T for task in _by_task(scores, 2).values()]
    if len(lengths := {len(task) for task in tasks}) > 1:
        raise UserError(f"the tasks have different numbers of times: {sorted(lengths)}")
    return tasks


def as_pairs(scores: Scores, baseline: Scores) -> tuple[list[FloatArray], list[FloatArray]]:
    """The scores [runs] of each task, of two agents; raises UserError if the tasks differ."""
    ours, theirs = _by_task(scores, 1), _by_task(baseline, 1)
    if set(ours) != set(theirs):
        raise UserError(f"the tasks differ: {', '.join(sorted(set(ours) ^ set(theirs)))}")
    return list(ours.values()), [theirs[name] for name in ours]


def _by_task(scores: Scores, axes: int) -> dict[str, FloatArray]:
    """The scores of each task, with `axes` axes of which the first is that of the runs."""
    if isinstance(scores, Mapping):
        if len(names := [*map(str, scores)]) > len({*names}):
            raise UserError(f"two tasks have the same name: {', '.join(names)}")
        tasks = {str(name): _as_array(task) for name, task in scores.items()}
    else:
        array = _as_array(scores)
        columns = np.moveaxis(array, 1, 0) if array.ndim == axes + 1 else array[None]
        tasks = {f"number {index}": task for index, task in enumerate(columns)}
    if not tasks:
        raise UserError("there are no scores")
    for name, task in tasks.items():
        if task.ndim != axes:
            raise UserError(f"the scores of task {name} have the shape {task.shape}, but need {axes} axes")
        if task.size == 0:
            raise UserError(f"task {name} has no scores")
        if np.isnan(task).any():
            raise UserError(f"task {name} has a score that is NaN; repeat the run that gave it")
    return tasks


def _as_array(scores: npt.ArrayLike) -> FloatArray:
    if isinstance(scores, np.ma.MaskedArray):
        raise UserError("the scores are a masked array; give those that count, as .compressed() does")
    try:
        return np.asarray(scores, float)
    except (TypeError, ValueError) as error:
        raise UserError(
            "the scores are not numbers, or their rows have different lengths; give numbers, one list of "
            "runs for each task"
        ) from error
