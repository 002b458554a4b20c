"""The charts of a sweep: history, slices, parallel coordinates, Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dqn_runner.report.charts import Chart, Line, arrays_of, on_common_x
from dqn_runner.report.configuration import shown
from dqn_runner.run.thinning import Values
from dqn_runner.sweep.results.stored_sweep import StoredSweep, state_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

MOST_SLICES = 12
MOST_LINES = 100
"""Trials in the parallel coordinates: the best ones."""


def history_chart(sweep: StoredSweep) -> Chart:
    """The first objective of each trial, the best so far, and the pruned trials at their last report."""
    name, maximizes = sweep.settings.objectives[0], sweep.settings.directions[0] == "maximize"
    complete = [(float(t.number), t.values[0]) for t in _complete(sweep)]
    pruned = [
        (float(t.number), t.intermediate_values[max(t.intermediate_values)])
        for t in sweep.trials
        if state_of(t) == "pruned" and t.intermediate_values
    ]
    better = max if maximizes else min
    best: list[tuple[float, float]] = []
    for number, value in complete:
        best.append((number, better(value, best[-1][1]) if best else value))
    if best and sweep.trials:
        best.append((float(sweep.trials[-1].number), best[-1][1]))
    series = [
        ("best so far", list(dict(best).items()), 1, "line"),
        ("complete", complete, 0, "points"),
        ("pruned, last report", pruned, 6, "points"),
    ]
    shown_series = [s for s in series if s[1]]
    x, ys = on_common_x([arrays_of(points) for _, points, _, _ in shown_series])
    return Chart(
        id="history",
        title="Optimisation history",
        x_label="trial",
        y_label=name,
        x=x,
        lines=[
            Line(label=label, y=y, color=color, style=style)  # pyright: ignore[reportArgumentType]
            for (label, _, color, style), y in zip(shown_series, ys, strict=True)
        ],
    )


def slices(sweep: StoredSweep, importance: dict[str, float]) -> list[Chart]:
    """The first objective over each parameter, the most important ones first."""
    names = sorted(sweep.parameters, key=lambda name: -importance.get(name, 0.0))
    return [_slice(sweep, f"slice{i}", name) for i, name in enumerate(names[:MOST_SLICES])]


def _slice(sweep: StoredSweep, id: str, name: str) -> Chart:
    distribution = sweep.parameters[name]
    trials = [t for t in _complete(sweep) if name in t.params]
    options, is_log = _options(distribution), bool(getattr(distribution, "log", False))
    x = np.array([_place(t.params[name], options) for t in trials], float)
    order = np.argsort(x, kind="stable")
    y = np.array([t.values[0] for t in trials], float)[order]
    best = np.full(len(y), np.nan)
    numbers = [trials[int(i)].number for i in order]
    if sweep.best and sweep.best[0].number in numbers:
        at = numbers.index(sweep.best[0].number)
        best[at] = y[at]
    return Chart(
        id=id,
        title=name,
        x_label=name.rpartition(".")[2],
        y_label=sweep.settings.objectives[0],
        x=apart(x[order], log=is_log, names=bool(options)),
        x_kind="names" if options else "log" if is_log else "number",
        x_names=[shown(option) for option in options],
        lines=[
            Line(label="trials", y=y, style="points"),
            Line(label="best", y=best, color=1, style="star"),
        ],
    )


def parallel_coordinates(sweep: StoredSweep) -> Chart | None:
    """A line for each completed trial through its parameters to its value; None with too few to compare."""
    names = list(sweep.parameters)
    trials = sorted(
        _complete(sweep), key=lambda t: t.values[0], reverse=sweep.settings.directions[0] == "maximize"
    )
    if len(names) < 2 or len(trials) < 2:
        return None
    values = np.array([t.values[0] for t in trials])
    low, high = float(values.min()), float(values.max())
    axes = [_axis(name, sweep.parameters[name]) for name in names]
    lines: list[Line] = []
    for rank, trial in enumerate(trials[:MOST_LINES]):
        places = [_share(trial.params.get(name), sweep.parameters[name]) for name in names]
        places.append((trial.values[0] - low) / (high - low) if high > low else 0.5)
        first = rank == 0
        lines.append(
            Line(
                label=f"trial {trial.number}",
                y=np.array(places, float),
                color=1 if first else 0,
                style="line" if first else "faint",
            )
        )
    objective = sweep.settings.objectives[0]
    best = f"The orange line is trial {trials[0].number}."
    return Chart(
        id="parallel",
        title="Parallel coordinates",
        x_label="",
        y_label="place in the range",
        x=np.arange(len(names) + 1, dtype=float),
        x_kind="names",
        x_names=[*axes, f"{objective}\n{low:.4g} to {high:.4g}"],
        lines=lines[::-1],
        wide=True,
        note=best if len(trials) <= MOST_LINES else f"{best} The best {MOST_LINES} trials are drawn.",
    )


def pareto_charts(sweep: StoredSweep) -> list[Chart]:
    """The objectives against the first one, with the Pareto front; none with a single objective."""
    names = sweep.settings.objectives
    front = {trial.number for trial in sweep.best}
    charts: list[Chart] = []
    for index in range(1, len(names)):
        trials = sorted(_complete(sweep), key=lambda t: t.values[index])
        y = np.array([t.values[0] for t in trials], float)
        on_front = np.array([t.number in front for t in trials], bool)
        charts.append(
            Chart(
                id=f"pareto{index}",
                title=f"Pareto front: {names[0]} and {names[index]}",
                x_label=names[index],
                y_label=names[0],
                x=apart(np.array([t.values[index] for t in trials], float)),
                lines=[
                    Line(label="dominated", y=np.where(on_front, np.nan, y), color=6, style="points"),
                    Line(label="Pareto front", y=np.where(on_front, y, np.nan), color=1, style="star"),
                ],
            )
        )
    return charts


def apart(x: Values, log: bool = False, names: bool = False) -> Values:
    """Ascending x values, of which equal ones are moved apart: uPlot leaves out all but one at the edges."""
    first = np.searchsorted(x, x)  # of the equal ones
    rank = np.arange(len(x)) - first
    if log:
        return x * (1 + 1e-6 * rank)
    if names:
        return x + 0.3 * (rank / np.maximum(1, np.bincount(first, minlength=len(x))[first]))
    return x + 1e-6 * rank * (float(np.ptp(x)) or 1.0) if len(x) else x


def _complete(sweep: StoredSweep) -> list[FrozenTrial]:
    return [
        t
        for t in sweep.trials
        if state_of(t) == "complete" and t.values is not None and all(map(math.isfinite, t.values))
    ]


def _options(distribution: BaseDistribution) -> Sequence[Any]:
    """The options of a choice; none for a number."""
    return getattr(distribution, "choices", ())


def _place(value: Any, options: Sequence[Any]) -> float:
    return float(options.index(value)) if options else float(value)


def _share(value: Any, distribution: BaseDistribution) -> float:
    """The place of a value in the range of its distribution, in [0, 1]; NaN for a trial without it."""
    options = _options(distribution)
    if options:
        return options.index(value) / max(1, len(options) - 1) if value in options else math.nan
    if value is None:
        return math.nan
    low, high = float(getattr(distribution, "low")), float(getattr(distribution, "high"))  # noqa: B009
    scale: Callable[[float], float] = math.log if getattr(distribution, "log", False) else float
    return (scale(value) - scale(low)) / (scale(high) - scale(low)) if high > low else 0.5


def _axis(name: str, distribution: BaseDistribution) -> str:
    options = _options(distribution)
    short = name.rpartition(".")[2]
    if options:
        return f"{short}\n{shown(options[0])} to {shown(options[-1])}"
    return f"{short}\n{getattr(distribution, 'low'):.4g} to {getattr(distribution, 'high'):.4g}"  # noqa: B009
