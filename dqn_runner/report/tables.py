"""The table of a comparison as CSV and as LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from dqn_runner.report.comparison import Row, Task
from dqn_runner.statistics.bootstrap import Estimate

HEAD = (
    "env",
    "group",
    "runs",
    "iqm",
    "iqm_low",
    "iqm_high",
    "mean",
    "mean_low",
    "mean_high",
    "median",
    "min",
    "max",
    "training_iqm",
    "target",
    "reached_target",
    "median_steps_to_target",
    "optimality_gap",
    "median_seconds",
    "median_env_steps",
)
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def csv_table(tasks: Sequence[Task]) -> str:
    """All numbers of the table, a line for each group."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEAD)
    for task in tasks:
        for row in task.rows:
            writer.writerow(_cells(task, row))
    return text.getvalue()


def latex_table(tasks: Sequence[Task], kind: str) -> str:
    """The scores with their intervals, for the package booktabs."""
    lines = [
        f"% Interquartile mean of the {_latex(kind)}, with 95 % stratified bootstrap intervals.",
        r"\begin{tabular}{llrrr}",
        r"\toprule",
        r"Environment & Group & Runs & IQM [95\,\% interval] & Mean [95\,\% interval] \\",
        r"\midrule",
    ]
    for task in tasks:
        for row in task.rows:
            cells = (
                _latex(task.env),
                _latex(row.label),
                str(row.runs),
                _interval(row.score),
                _interval(row.mean),
            )
            lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _cells(task: Task, row: Row) -> list[object]:
    numbers = [
        *row.score,
        *row.mean,
        row.median,
        row.lowest,
        row.highest,
        row.training.value,
        task.target,
        row.reached,
        row.steps_to_target,
        row.gap.value if row.gap is not None else np.nan,
        row.seconds,
        row.env_steps,
    ]
    return [
        _plain(task.env),
        _plain(row.label),
        row.runs,
        *("" if np.isnan(n) else f"{n:.6g}" for n in numbers),
    ]


def _plain(text: str) -> str:
    """A text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text


def _interval(found: Estimate) -> str:
    ends = "" if np.isnan(found.low) else f" [{found.low:.4g}, {found.high:.4g}]"
    return f"{found.value:.4g}{ends}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
