"""The charts of one run: its curves, and the timeline of its sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dqn_runner.report.charts import Band, Chart, Line, arrays_of, on_common_x
from dqn_runner.report.history import History
from dqn_runner.report.records import EPISODE, EVAL, TRAIN
from dqn_runner.run.plots import average_window, moving_average
from dqn_runner.run.thinning import Values
from dqn_runner.run.timeline import KILLED, RESUME, SAVED, START, Happening

STEPS = "env steps"
RETURN = "return (undiscounted reward)"
LINKED = "steps"
LABELS = {TRAIN: "training", EVAL: "evaluation", EPISODE: "each episode"}
"""What a metric of the user is of, by kind of record."""
LOG_RATIO = 100
"""A loss that spans such a ratio is drawn on a logarithmic axis."""


def curves(history: History) -> list[Chart]:
    """The curves over env steps; those without data are empty."""
    epsilon = (Line(label="epsilon", y=history.column(TRAIN, "epsilon"), color=3),)
    q_mean = (Line(label="Q", y=history.column(TRAIN, "q_mean"), color=2),)
    return [
        _smoothed(history, "return", EPISODE, "return", "Training return", RETURN, "each episode"),
        evaluation_chart(history),
        _loss(history),
        _over_steps(history, "q", TRAIN, "Q value of the actions taken", "Q (mean per log interval)", q_mean),
        _over_steps(history, "epsilon", TRAIN, "Exploration", "probability of a random action", epsilon),
        _smoothed(
            history, "length", EPISODE, "length", "Episode length", "env steps per episode", "each episode"
        ),
        *_user_metrics(history),
    ]


def evaluation_chart(history: History) -> Chart:
    """The evaluations, with their spread over episodes, and the best one."""
    table = history.tables[EVAL]
    mean, std = history.column(EVAL, "return_mean"), history.column(EVAL, "return_std")
    low, high = history.column(EVAL, "return_min"), history.column(EVAL, "return_max")
    best = np.full(len(mean), np.nan)
    if np.isfinite(mean).any():
        best[np.nanargmax(mean)] = np.nanmax(mean)
    return Chart(
        id="evaluation",
        title="Evaluation return (greedy policy)",
        x_label=STEPS,
        y_label=RETURN,
        x=table["step"],
        bands=(
            Band(label="min to max", low=low, high=high),
            Band(label="±1 std", low=mean - std, high=mean + std, strong=True),
        ),
        lines=(
            Line(label="mean", y=mean),
            Line(label="best", y=best, color=1, style="star"),
        ),
        linked=LINKED,
    )


def timeline_chart(events: Sequence[Happening], last_step: int) -> Chart | None:
    """The env step over time: a line for each session, and a mark for each event; None if none is known."""
    points = _session_points(events, last_step)
    if not points:
        return None
    saved = [(e.time, float(e.step)) for e in events if e.event == SAVED and e.step is not None]
    best = [
        (e.time, float(e.step))
        for e in events
        if e.event == SAVED and e.step is not None and "best.pt" in e.names
    ]
    killed = [
        (e.time, float(step))
        for e, step in zip(events, _steps(events, last_step), strict=True)
        if e.event == KILLED
    ]
    lines: list[tuple[str, list[tuple[float, float]], int, str]] = [
        (f"session {i}", session, 0 if i % 2 else 5, "line") for i, session in enumerate(points, start=1)
    ]
    lines += [("checkpoint", saved, 2, "points"), ("best", best, 4, "star"), ("killed", killed, 1, "cross")]
    lines = [line for line in lines if line[1]]
    x, ys = on_common_x([arrays_of(line[1]) for line in lines])
    return Chart(
        id="timeline",
        title="Sessions",
        x_label="time (UTC)",
        y_label=STEPS,
        x=x,
        x_kind="time",
        lines=[
            Line(label=label, y=y, color=color, style=style)  # pyright: ignore[reportArgumentType]
            for (label, _, color, style), y in zip(lines, ys, strict=True)
        ],
    )


def _steps(events: Sequence[Happening], last_step: int) -> list[int]:
    """The env step of each event; an end without one has that of the event before, or at last `last_step`."""
    found: list[int] = []
    for index, event in enumerate(events):
        before = found[-1] if found else 0
        is_last = index == len(events) - 1 and event.event != KILLED
        found.append(event.step if event.step is not None else max(before, last_step) if is_last else before)
    return found


def _session_points(events: Sequence[Happening], last_step: int) -> list[list[tuple[float, float]]]:
    sessions: list[list[tuple[float, float]]] = []
    for event, step in zip(events, _steps(events, last_step), strict=True):
        if event.event in (START, RESUME) or not sessions:
            sessions.append([])
        sessions[-1].append((event.time, float(step)))
    return sessions


def _over_steps(
    history: History, id: str, kind: str, title: str, y_label: str, lines: Sequence[Line]
) -> Chart:
    x = history.tables[kind]["step"]
    return Chart(id=id, title=title, x_label=STEPS, y_label=y_label, x=x, lines=lines, linked=LINKED)


def _smoothed(
    history: History, id: str, kind: str, column: str, title: str, y_label: str, each: str
) -> Chart:
    """Every value faintly, and the moving average."""
    values = history.column(kind, column)
    window = average_window(len(values))
    lines = (
        Line(label=each, y=values, style="faint"),
        Line(label=f"mean of the last {window}", y=_average(values, window), color=1),
    )
    return _over_steps(history, id, kind, title, y_label, lines)


def _average(values: Values, window: int) -> Values:
    """The moving average over the values that are numbers."""
    there = np.isfinite(values)
    found = np.full(len(values), np.nan)
    found[there] = moving_average(values[there], window)
    return found


def _loss(history: History) -> Chart:
    chart = _smoothed(
        history, "loss", TRAIN, "loss", "TD loss", "loss (mean per log interval)", "each log interval"
    )
    loss = history.column(TRAIN, "loss")
    loss = loss[np.isfinite(loss)]
    log = bool(len(loss)) and 0 < LOG_RATIO * float(loss.min()) < float(loss.max())
    title = f"{chart.title} (log scale)" if log else chart.title
    return replace(chart, log_y=log, title=title)


def _user_metrics(history: History) -> list[Chart]:
    """A chart for each metric of the environment or of a callback."""
    charts: list[Chart] = []
    for index, (key, places) in enumerate(sorted(history.user_metrics().items())):
        points: list[tuple[Values, Values]] = []
        for kind, column in places:
            x, y = history.tables[kind]["step"], history.column(kind, column)
            last = np.append(np.diff(x) > 0, True)  # several episodes may end at one step
            points.append((x[last], y[last]))
        x, ys = on_common_x(points)
        lines = [
            Line(label=LABELS[kind], y=y, color=list(LABELS).index(kind))
            for (kind, _), y in zip(places, ys, strict=True)
        ]
        chart = Chart(
            id=f"user{index}", title=key, x_label=STEPS, y_label=key, x=x, lines=lines, linked=LINKED
        )
        charts.append(chart)
    return charts
