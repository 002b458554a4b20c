"""What a comparison says: scores with intervals, curves, profiles and probabilities of improvement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dqn_runner.report.charts import Chart
from dqn_runner.report.comparison_charts import curve_chart, profile_chart, score_chart
from dqn_runner.report.grouping import Group
from dqn_runner.report.records import EVAL
from dqn_runner.report.stored_run import StoredRun
from dqn_runner.run.thinning import Values
from dqn_runner.statistics.aggregates import iqm, mean, median, optimality_gap
from dqn_runner.statistics.bootstrap import (
    Estimate,
    estimate,
    probability_of_improvement,
)

MOST_PAIRED = 10
"""The most groups for which every pair is compared."""
RESAMPLES = 10_000
CLOSE = 0.9
"""Without a reward threshold, a run is fast if it soon reaches this share of the way to the best score."""


@dataclass(frozen=True)
class Row:
    """One group in the table of a task."""

    label: str
    color: int
    runs: int
    score: Estimate
    """Interquartile mean of the scores of the runs."""
    mean: Estimate
    median: float
    lowest: float
    highest: float
    training: Estimate
    """Interquartile mean over runs of the mean return during training (`mean_until`)."""
    reached: int
    """Runs with an evaluation of at least the target."""
    steps_to_target: float
    """Median env steps of these runs until then."""
    gap: Estimate | None
    """Optimality gap, where the environment says which return solves it."""
    seconds: float
    """Median training time."""
    env_steps: float
    """Median env steps."""


@dataclass(frozen=True)
class Task:
    """The comparison on one environment."""

    env: str
    rows: list[Row]
    target: float
    target_is_known: bool
    """Whether the environment says which return solves it."""
    charts: list[Chart]
    pairs: list[tuple[str, list[Estimate | None]]]
    """For each group its probabilities of improvement over the groups; empty with many groups."""


@dataclass(frozen=True)
class Scores:
    """The scores of the runs of all groups."""

    kind: str
    """What the score of a run is, in words."""
    by_task: Mapping[str, Mapping[str, Values]]
    """By environment and group, [runs]."""
    without: list[str]
    """The directories of runs that were not evaluated, and are left out."""


def scores_of(groups: Sequence[Group]) -> Scores:
    """The score of each run: of `mode=eval` if every run has one, else its last evaluation."""
    runs = [run for group in groups for run in group.runs]
    evaluated = all(run.evaluation is not None for run in runs)
    kind = "mean return of the last evaluation of the run"
    if evaluated:
        kind = _kind_of_evaluations([run.evaluation for run in runs if run.evaluation is not None])
    found: dict[str, dict[str, list[float]]] = {}
    without: list[str] = []
    for group in groups:
        for run in group.runs:
            score = _score(run, evaluated)
            if not np.isfinite(score):
                without.append(str(run.directory))
            else:
                found.setdefault(run.env, {}).setdefault(group.label, []).append(score)
    arrays = {env: {label: np.array(v) for label, v in by.items()} for env, by in found.items()}
    return Scores(kind, arrays, without)


def _kind_of_evaluations(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """What `mode=eval` measured; different numbers of episodes, or different seeds, are named."""
    steps, episodes = ([_integer(found.get(key)) for found in evaluations] for key in ("step", "episodes"))
    kind = f"mean return of mode=eval, checkpoints of env step {_between(steps)}"
    if len({*episodes}) > 1:
        kind += f", of {_between(episodes)} episodes"
    seeds = [str(found.get("seed")) for found in evaluations]
    return kind + (f", with the episode seeds {', '.join(sorted({*seeds}))}" if len({*seeds}) > 1 else "")


def _integer(value: Any) -> int:
    """A number of eval.json, which anyone can have written; 0 if it is not one."""
    return int(value) if isinstance(value, int | float) and np.isfinite(value) else 0


def _between(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _score(run: StoredRun, evaluated: bool) -> float:
    if evaluated and run.evaluation is not None:
        return float(run.evaluation["return_mean"])
    means = run.history.column(EVAL, "return_mean")
    return float(means[-1]) if len(means) else np.nan


def compare_on(env: str, number: int, groups: Sequence[Group], scores: Mapping[str, Values]) -> Task:
    """The comparison of the groups that have scores on an environment, the `number`th one of the page."""
    members = {
        group.label: [run for run in group.runs if run.env == env and len(run.history.tables[EVAL]["step"])]
        for group in groups
    }
    labels = [group.label for group in groups if group.label in scores]
    colors = {group.label: index for index, group in enumerate(groups)}
    every = [run for label in labels for run in members[label]]
    target, is_known = _target(every, scores)
    last = max((_steps(run)[-1] for run in every), default=0.0)
    rows = [
        _row(label, colors[label], members[label], scores[label], target, is_known, last) for label in labels
    ]
    charts = [
        curve_chart(env, number, labels, colors, members),
        score_chart(env, number, {row.label: row.score for row in rows}, scores),
        profile_chart(env, number, labels, colors, scores),
    ]
    return Task(env, rows, target, is_known, charts, _pairs(labels, scores))


def improvement_over_tasks(
    by_task: Mapping[str, Mapping[str, Values]],
) -> list[tuple[str, list[Estimate | None]]]:
    """The probabilities of improvement over all environments, of the groups that were run on each."""
    labels = [
        label
        for label in {label: None for scores in by_task.values() for label in scores}
        if all(label in scores for scores in by_task.values())
    ]
    if len(by_task) < 2:
        return []
    tasks = {label: {env: scores[label] for env, scores in by_task.items()} for label in labels}
    return _pairs(labels, tasks)


def _target(runs: Sequence[StoredRun], scores: Mapping[str, Values]) -> tuple[float, bool]:
    """The return that counts as success: that of the environment, or close to the best score."""
    known = {run.settings.get("env.reward_threshold") for run in runs}
    if len(known) == 1 and isinstance(threshold := known.pop(), int | float):
        return float(threshold), True
    every = np.concatenate(list(scores.values()))
    first = [run.history.column(EVAL, "return_mean")[0] for run in runs]
    start = float(np.nanmedian(first)) if len(first) else float(every.min())
    best = max(float(iqm([values])) for values in scores.values())
    return start + CLOSE * (best - start), False


def _row(
    label: str,
    color: int,
    runs: Sequence[StoredRun],
    scores: Values,
    target: float,
    is_known: bool,
    last: float,
) -> Row:
    curves = [(_steps(run), run.history.column(EVAL, "return_mean")) for run in runs]
    reached = [float(x[np.argmax(y >= target)]) for x, y in curves if (y >= target).any()]
    during = np.array([mean_until(last, x, y) for x, y in curves if np.isfinite(y).any()])
    return Row(
        label=label,
        color=color,
        runs=len(scores),
        score=estimate([*scores], iqm, resamples=RESAMPLES),
        mean=estimate([*scores], mean, resamples=RESAMPLES),
        median=float(median([scores])),
        lowest=float(scores.min()),
        highest=float(scores.max()),
        training=estimate([*during], iqm, resamples=RESAMPLES)
        if len(during)
        else Estimate(np.nan, np.nan, np.nan),
        reached=len(reached),
        steps_to_target=float(np.median(reached)) if reached else np.nan,
        gap=estimate([*scores], optimality_gap(target), resamples=RESAMPLES) if is_known else None,
        seconds=float(np.median([run.history.seconds for run in runs])) if runs else np.nan,
        env_steps=float(np.median([run.history.env_steps for run in runs])) if runs else np.nan,
    )


def mean_until(last: float, steps: Values, returns: Values) -> float:
    """The mean return of a run up to env step `last` of the longest run, which rewards learning fast.

    An evaluation counts for the steps since the one before. A run that ended early keeps its last return.
    """
    there = np.isfinite(returns)
    ends = np.append(steps[there][:-1], max(last, steps[there][-1]))
    return float(np.average(returns[there], weights=np.diff(ends, prepend=0.0)))


def _steps(run: StoredRun) -> Values:
    """The env steps of the evaluations of a run."""
    return run.history.tables[EVAL]["step"]


def _pairs(labels: Sequence[str], scores: Mapping[str, Any]) -> list[tuple[str, list[Estimate | None]]]:
    """For each label its probabilities of improvement over the others; none with one label, or with many."""
    if not 2 <= len(labels) <= MOST_PAIRED:
        return []
    return [
        (
            one,
            [
                None if one == other else probability_of_improvement(scores[one], scores[other])
                for other in labels
            ],
        )
        for one in labels
    ]
