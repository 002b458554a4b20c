"""The report of several runs and sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dqn_runner.core.exceptions import UserError
from dqn_runner.report.comparison import compare_on, improvement_over_tasks, scores_of
from dqn_runner.report.found_runs import runs_to_compare
from dqn_runner.report.grouping import Group, grouped, repeated_seeds
from dqn_runner.report.pages import render
from dqn_runner.report.stored_run import StoredRun
from dqn_runner.report.tables import csv_table, latex_table


@dataclass(frozen=True)
class Comparison:
    """A page, and the tables of it."""

    html: str
    csv: str
    latex: str


def comparison_of(paths: Sequence[Path], by: str | None = None, live: bool = False) -> Comparison:
    """Compare the runs that `paths` name, in groups (see grouping.grouped).

    Raises UserError for a path without runs, and if no run has been evaluated.
    """
    found = runs_to_compare(paths)
    groups = grouped(found.runs, by)
    scores = scores_of(groups)
    if not scores.by_task:
        raise UserError("none of the runs has been evaluated yet, so there is nothing to compare")
    tasks = [
        compare_on(env, number, groups, by_group)
        for number, (env, by_group) in enumerate(scores.by_task.items(), start=1)
    ]
    csv, latex = csv_table(tasks), latex_table(tasks, scores.kind)
    html = render(
        "comparison.html.j2",
        charts=[chart for task in tasks for chart in task.charts],
        live=live,
        title=_title(paths, groups),
        tasks=tasks,
        over_tasks=improvement_over_tasks(scores.by_task),
        kind=scores.kind,
        without=scores.without,
        by=by,
        sweeps=[str(path) for path in found.sweeps],
        left_out=found.left_out,
        repeated=[text for group in groups for text in repeated_seeds(group)],
        members=[(group.label, _members(group)) for group in groups],
        csv=csv,
        latex=latex,
    )
    return Comparison(html, csv, latex)


def _title(paths: Sequence[Path], groups: Sequence[Group]) -> str:
    count = sum(len(group.runs) for group in groups)
    where = paths[0].resolve().name if len(paths) == 1 else f"{len(paths)} directories"
    return f"Comparison of {count} runs in {len(groups)} groups ({where})"


def _members(group: Group) -> list[StoredRun]:
    return sorted(group.runs, key=lambda run: str(run.directory))
