"""The charts of a comparison: curves, final scores, and performance profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dqn_runner.report.charts import Band, Chart, Line, on_common_x
from dqn_runner.report.records import EVAL
from dqn_runner.report.run_charts import RETURN, STEPS
from dqn_runner.report.stored_run import StoredRun
from dqn_runner.run.thinning import Values
from dqn_runner.statistics.aggregates import iqm
from dqn_runner.statistics.bootstrap import Estimate, performance_profile, sample_efficiency

MOST_TIMES = 80
"""Points of a curve."""
LEVELS = 61
"""Thresholds of a performance profile, beside the scores themselves."""


def curve_chart(
    env: str,
    number: int,
    labels: Sequence[str],
    colors: Mapping[str, int],
    members: Mapping[str, Sequence[StoredRun]],
) -> Chart:
    """The interquartile mean of the evaluations over env steps."""
    series: list[tuple[Values, Values]] = []
    bands: list[tuple[Values, Values] | None] = []
    ended_early = 0
    drawn = [label for label in labels if members[label]]
    for label in drawn:
        times, matrix, early = evaluation_matrix(members[label])
        curve = sample_efficiency(matrix, iqm)
        ended_early += early
        series.append((times, curve.value))
        bands.append((curve.low, curve.high) if np.isfinite(curve.low).any() else None)
    x, values = on_common_x(series)
    note = (
        f"{ended_early} of the runs ended before others of their group; the last evaluation of each is kept."
        if ended_early
        else ""
    )
    return Chart(
        id=f"curves{number}",
        title=f"Evaluation return on {env}: interquartile mean over runs, with 95 % intervals",
        x_label=STEPS,
        y_label=RETURN,
        x=x,
        lines=[Line(label=label, y=y, color=colors[label]) for label, y in zip(drawn, values, strict=True)],
        bands=[
            _band(label, times, band, x, colors[label])
            for label, (times, _), band in zip(drawn, series, bands, strict=True)
            if band is not None
        ],
        note=note,
    )


def _band(label: str, times: Values, band: tuple[Values, Values], x: Values, color: int) -> Band:
    """A band at all x values of the chart, within those of its curve."""
    low, high = (np.interp(x, times, end, left=np.nan, right=np.nan) for end in band)
    return Band(label=f"{label}: 95 % interval", low=low, high=high, color=color)


def evaluation_matrix(runs: Sequence[StoredRun]) -> tuple[Values, Values, int]:
    """The evaluations of runs at common times: times [times], returns [runs, times], runs that ended early.

    Between evaluations the return is interpolated. A run that ended early keeps its last evaluation.
    """
    curves = [(run.history.tables[EVAL]["step"], run.history.column(EVAL, "return_mean")) for run in runs]
    curves = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in curves if np.isfinite(y).any()]
    first, last = max(float(x[0]) for x, _ in curves), max(float(x[-1]) for x, _ in curves)
    every: Values = np.unique(np.concatenate([x for x, _ in curves]))
    times: Values = every[(every >= first) & (every <= last)]
    if len(times) > MOST_TIMES:
        times = np.linspace(first, last, MOST_TIMES)
    matrix: Values = np.array([np.interp(times, x, y) for x, y in curves])
    return times, matrix, sum(bool(x[-1] < last) for x, _ in curves)


def score_chart(env: str, number: int, means: Mapping[str, Estimate], scores: Mapping[str, Values]) -> Chart:
    """The score of each run, and the interquartile mean of each group with its interval."""
    runs: list[tuple[float, float]] = []
    middle: list[tuple[float, float]] = []
    low: list[tuple[float, float]] = []
    high: list[tuple[float, float]] = []
    for index, (label, mean) in enumerate(means.items()):
        values = scores[label]
        offsets = np.linspace(-0.2, 0.1, len(values)) if len(values) > 1 else np.array([-0.05])
        runs += zip(index + offsets, values, strict=True)
        middle.append((index + 0.25, mean.value))
        for x in (index + 0.23, index + 0.25, index + 0.27):
            low.append((x, mean.low))
            high.append((x, mean.high))
    x, ys = on_common_x([(np.array(p)[:, 0], np.array(p)[:, 1]) for p in (runs, middle, low, high)])
    return Chart(
        id=f"scores{number}",
        title=f"Final scores on {env}",
        x_label="group",
        y_label=RETURN,
        x=x,
        x_kind="names",
        x_names=list(means),
        lines=[
            Line(label="each run", y=ys[0], style="points"),
            Line(label="interquartile mean", y=ys[1], color=1, style="star"),
        ],
        bands=[Band(label="95 % interval", low=ys[2], high=ys[3], color=1, strong=True)]
        if np.isfinite(ys[2]).any()
        else [],
    )


def profile_chart(
    env: str, number: int, labels: Sequence[str], colors: Mapping[str, int], scores: Mapping[str, Values]
) -> Chart:
    """The share of runs above each score."""
    every = np.concatenate([scores[label] for label in labels])
    low, high = float(every.min()), float(every.max())
    margin = 0.03 * (high - low) or 1.0
    steps = (every, np.nextafter(every, -np.inf))  # where the profile falls
    levels = np.unique(np.concatenate([np.linspace(low - margin, high + margin, LEVELS), *steps]))
    curves = {label: performance_profile([*scores[label]], levels) for label in labels}
    return Chart(
        id=f"profile{number}",
        title=f"Performance profile on {env}: share of runs with a score above",
        x_label=RETURN,
        y_label="share of runs",
        x=levels,
        lines=[Line(label=label, y=curve.value, color=colors[label]) for label, curve in curves.items()],
        bands=[
            Band(label=f"{label}: 95 % interval", low=curve.low, high=curve.high, color=colors[label])
            for label, curve in curves.items()
            if np.isfinite(curve.low).any()
        ],
    )
