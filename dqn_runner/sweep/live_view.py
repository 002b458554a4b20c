"""What the table of a running sweep says, and how it looks; its texts come from users, and have no markup."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dqn_runner.io.terminal import duration, number, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

NARROW, WIDE = 60, 100
"""Columns of a terminal that are needed for settings and a bar, and for the env steps too."""
MOST_BEST = 3
"""Trials that are shown as the best ones."""
FRAME = 6
"""Lines of the table beside those of runs and best trials."""
STYLES = {"complete": "green", "pruned": "yellow", "diverged": "yellow", "failed": "red"}


@dataclass(frozen=True)
class RunView:
    """A run that a job is training now."""

    trial: int
    seed: int | None
    """None if the trial has one seed only."""
    validates: bool
    share: float | None
    """The used fraction of the budget; None before the run has logged something."""
    step: int
    training_return: float | None
    score: float | None
    """Mean return of its last evaluation."""
    eta: float | None
    settings: str


@dataclass(frozen=True)
class BestView:
    """One of the best trials so far."""

    trial: int
    values: str
    settings: str


@dataclass(frozen=True)
class SweepView:
    """A sweep at one moment."""

    name: str
    n_trials: int
    counts: Mapping[str, int]
    """Trials by state."""
    runs: Sequence[RunView]
    best: Sequence[BestView]
    elapsed: float
    """Seconds of this session."""
    eta: float | None
    """Seconds until all trials are finished; None before it can be estimated."""


def live_table(view: SweepView, width: int, height: int) -> RenderableType:
    """The table for a terminal of this size; with many jobs, the runs that have got furthest."""
    room = max(1, height - FRAME - len(view.best))
    runs = sorted(view.runs, key=lambda run: (-(run.share or 0.0), run.trial, run.seed or 0))
    parts: list[RenderableType] = [Text(), _headline(view)]
    if runs:
        parts.append(_runs(sorted(runs[:room], key=lambda run: (run.trial, run.seed or 0)), width))
    if len(runs) > room:
        parts.append(Text(f"and {len(runs) - room} more"))
    if view.best and height > FRAME + MOST_BEST:
        parts.append(_best(view.best, width))
    return Group(*parts)


def _headline(view: SweepView) -> Text:
    counts = {state: count for state, count in view.counts.items() if count}
    waiting = ("running", "waiting")
    finished = sum(count for state, count in counts.items() if state not in waiting)
    line = Text.assemble((printable(view.name), "bold"), f": {finished} of {view.n_trials} trials")
    for state, count in counts.items():
        if state not in waiting:
            line.append(", ").append(f"{count} {state}", STYLES.get(state, ""))
    line.append(f" | {duration(view.elapsed)}")
    if view.eta is not None:
        line.append(f", about {duration(view.eta)} left")
    return line


def _runs(runs: Sequence[RunView], width: int) -> Table:
    columns = [column for column in _COLUMNS if width >= column.least_width]
    if all(run.seed is None for run in runs):
        columns = [column for column in columns if column.name != "seed"]
    table = _table(width)
    for column in columns:
        table.add_column(column.name, **column.style)
    for run in runs:
        table.add_row(*(column.cell(run) for column in columns))
    return table


@dataclass(frozen=True)
class _Column:
    name: str
    cell: Callable[[RunView], RenderableType]
    least_width: int = 0
    """Of terminals that show it."""
    style: Mapping[str, Any] = field(default_factory=lambda: {"justify": "right", "no_wrap": True})


_SETTINGS: Mapping[str, Any] = {"no_wrap": True, "overflow": "ellipsis", "ratio": 1}
_COLUMNS = (
    _Column("trial", lambda run: str(run.trial)),
    _Column("seed", lambda run: "" if run.seed is None else str(run.seed)),
    _Column("", lambda run: ProgressBar(total=1.0, completed=run.share or 0.0), NARROW, {"width": 10}),
    _Column("done", lambda run: "starts" if run.share is None else f"{run.share:.0%}"),
    _Column("steps", lambda run: f"{run.step:,}", WIDE),
    _Column("return", lambda run: number(run.training_return)),
    _Column("eval", lambda run: number(run.score), NARROW),
    _Column("left", lambda run: duration(run.eta)),
    _Column(
        "settings",
        lambda run: Text(f"{'validation: ' if run.validates else ''}{run.settings}"),
        NARROW,
        _SETTINGS,
    ),
)


def _table(width: int) -> Table:
    return Table(box=None, pad_edge=False, header_style="bold", expand=width >= NARROW)


def _best(best: Sequence[BestView], width: int) -> Table:
    table = _table(width)
    table.add_column("best", justify="right", no_wrap=True)
    table.add_column("value", no_wrap=True)
    if width >= NARROW:
        table.add_column("settings", **_SETTINGS)
    for trial in best:
        cells = [str(trial.trial), Text(trial.values), Text(trial.settings)]
        table.add_row(*cells[: len(table.columns)])
    return table
