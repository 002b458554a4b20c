"""Plots of a run, drawn from its metrics.json; `python -m dqn_runner.run.plots RUN_DIR` draws them again."""

from __future__ import annotations

# pyright: reportUnknownMemberType=false
# (matplotlib's methods take untyped keyword arguments)
import argparse
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dqn_runner.core.exceptions import DamagedError, UserError
from dqn_runner.io import json_io
from dqn_runner.io.files import write_atomically
from dqn_runner.run.thinning import Values, thin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


CURVES = "training_curves.png"
"""File name of the plots."""
MAX_POINTS = 3_000
"""Maximum number of points of a curve; a panel is about 500 pixels wide."""
MARKED_POINTS = 50
"""Curves of at most this many points mark each one; a single point would otherwise be invisible."""

OWN = "metrics/"
"""Of the columns of the environment's metrics."""
MOST_OWN = 12
"""Metrics of the environment that have a panel."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#B8860B", "#56B4E9", "#7F7F7F", "#332288")
"""Colours that are distinguishable with colour blindness (after Okabe and Ito, and Tol), also of reports."""
BLUE, ORANGE, GREEN, PURPLE = COLORS[:4]
WIDTH, ROW, DPI = 8.6, 3.2, 180
"""Inches, which are also those on a screen where a page shows the picture, and pixels per inch."""
SMALL, LARGE = 9, 10
"""Points of the text."""
RETURN = "return (undiscounted reward)"

Table = Mapping[str, Sequence[Any]]


def draw_training_curves(run_dir: Path) -> None:
    """Draw training_curves.png from metrics.json, both in `run_dir`.

    Raises DamagedError if that is not what a run writes.
    """
    path = run_dir / json_io.METRICS
    metrics = json_io.read_json(path)
    try:
        figure = training_figure(metrics, run_dir.resolve().name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged ({type(error).__name__}: {error}); move it away") from error
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(run_dir / CURVES, picture.getvalue())


def training_figure(metrics: Mapping[str, Any], name: str) -> Figure:
    """Draw the run `name` from the content of its metrics.json; needs no display.

    There are six panels, and one for each metric of the environment, MOST_OWN at most.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    own = _own_metrics(metrics)
    rows = 3 + -(-len(own) // 2)
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08)
    figure = Figure(figsize=(WIDTH, ROW * rows), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    figure.suptitle(_headline(metrics, name), fontsize=LARGE + 1, parse_math=False)
    panels = list(figure.subplots(rows, 2).flat)
    returns, evaluations, loss, epsilon, q_mean, lengths = panels[:6]
    episodes, train = metrics["episodes"], metrics["train"]

    label_panel(returns, "Training return", RETURN)
    _draw_smoothed(returns, *columns(episodes, "step", "return"), each="episode")
    label_panel(evaluations, "Evaluation return (greedy policy)", RETURN)
    _draw_evaluations(evaluations, metrics["evaluations"])
    label_panel(loss, "TD loss", "loss (mean per log interval)")
    _draw_loss(loss, *columns(train, "step", "loss"))
    label_panel(epsilon, "Exploration", "probability of a random action")
    _draw(epsilon, *columns(train, "step", "epsilon"), color=PURPLE)
    epsilon.set_ylim(-0.03, 1.03)
    label_panel(q_mean, "Q value of the actions taken", "Q (mean per log interval)")
    _draw(q_mean, *columns(train, "step", "q_mean"), color=GREEN)
    label_panel(lengths, "Episode length", "env steps per episode")
    _draw_smoothed(lengths, *columns(episodes, "step", "length"), each="episode")

    for panel, key in zip(panels[6:], own, strict=False):
        label_panel(panel, key.removeprefix(OWN), "mean of the episodes")
        _draw_own(panel, metrics, key)
    for panel in panels[6 + len(own) :]:
        panel.remove()
    for panel in panels[: 6 + len(own)]:
        finish_panel(panel, metrics["env_steps"])
    return figure


def _own_metrics(metrics: Mapping[str, Any]) -> list[str]:
    """The columns of the environment's metrics that are drawn."""
    tables = (metrics["train"], metrics["evaluations"])
    return list(dict.fromkeys(key for table in tables for key in table if key.startswith(OWN)))[:MOST_OWN]


def _draw_own(panel: Axes, metrics: Mapping[str, Any], key: str) -> None:
    """Draw a metric of the environment, of training and of the evaluations."""
    for table, label, color in (("train", "training", BLUE), ("evaluations", "evaluation", ORANGE)):
        if key in metrics[table]:
            _draw(panel, *columns(metrics[table], "step", key), color=color, label=label)


def columns(table: Table, *names: str) -> list[Values]:
    """Return columns of a table as arrays [rows], without rows where one of them is null or infinite."""
    values = np.array([table[name] for name in names], dtype=np.float64)
    return list(values[:, np.isfinite(values).all(axis=0)])


def average_window(count: int) -> int:
    """Window of the moving average over `count` values."""
    return min(100, max(5, count // 20))


def moving_average(values: Values, window: int) -> Values:
    """Mean of the last `window` values at each position of `values` [n]; of fewer at the start."""
    if not len(values):
        return values
    sums = np.convolve(values, np.ones(window))[: len(values)]
    return sums / np.minimum(np.arange(1, len(values) + 1), window)


def _draw(panel: Axes, step: Values, value: Values, **style: Any) -> None:
    """Draw a line through the points, if there are any."""
    if len(step):
        shown = thin(value, MAX_POINTS)
        marker = "o" if len(step) <= MARKED_POINTS else ""
        style = {"marker": marker, "markersize": 3, "linewidth": 1.4, **style}
        panel.plot(step[shown], value[shown], **style)


def _draw_range(panel: Axes, step: Values, low: Values, high: Values, **style: Any) -> None:
    """Draw a shaded band, or a bar if there is only one step."""
    if len(step) > 1:
        panel.fill_between(step, low, high, linewidth=0, **style)
    else:
        panel.vlines(step, low, high, linewidth=8, **style)


def _draw_smoothed(panel: Axes, step: Values, value: Values, each: str) -> None:
    """Draw every value faintly, and the moving average."""
    window = average_window(len(value))
    average = moving_average(value, window)
    _draw(panel, step, value, color=BLUE, alpha=0.4, linewidth=0.6, label=f"each {each}")
    _draw(panel, step, average, color=ORANGE, linewidth=1.6, label=f"mean of the last {window}")


def _draw_evaluations(panel: Axes, evaluations: Table) -> None:
    """Draw the mean return of each evaluation, its spread over the episodes, and the best one."""
    names = ("return_mean", "return_std", "return_min", "return_max")
    step, mean, std, low, high = columns(evaluations, "step", *names)
    if not len(step):
        return
    _draw_range(panel, step, low, high, color=BLUE, alpha=0.12, label="min to max")
    _draw_range(panel, step, mean - std, mean + std, color=BLUE, alpha=0.25, label="±1 std")
    _draw(panel, step, mean, color=BLUE, label="mean")
    best = mean.argmax()
    style: dict[str, Any] = {"marker": "*", "s": 130, "color": ORANGE, "edgecolor": "black", "linewidth": 0.6}
    panel.scatter(step[best], mean[best], zorder=3, label=f"best: {mean[best]:.4g}", **style)


def _draw_loss(panel: Axes, step: Values, loss: Values) -> None:
    """Draw the loss, on a logarithmic axis if it spans orders of magnitude."""
    _draw_smoothed(panel, step, loss, each="log interval")
    if len(loss) and 0 < 100 * loss.min() < loss.max():
        panel.set_yscale("log")
        panel.title.set_text(f"{panel.get_title()} (log scale)")


def _headline(metrics: Mapping[str, Any], name: str) -> str:
    """Title of the figure: name, size and best evaluation of the run."""
    best, episodes = metrics["best"], len(metrics["episodes"]["step"])
    result = (
        "not evaluated yet"
        if best["return_mean"] is None
        else f"best evaluation {best['return_mean']:.4g} at env step {best['step']:,}"
    )
    return f"{name}\n{result}  ·  {metrics['env_steps']:,} env steps, {episodes:,} episodes"


def label_panel(panel: Axes, title: str, unit: str) -> None:
    """Write the title of a panel, above its legend, and the labels of its axes."""
    panel.set_title(title, fontsize=LARGE, fontweight="bold", pad=22)
    panel.set_ylabel(unit, fontsize=SMALL)
    panel.set_xlabel("env steps", fontsize=SMALL)
    panel.tick_params(labelsize=SMALL)
    panel.yaxis.get_offset_text().set_fontsize(SMALL)


def finish_panel(panel: Axes, steps: int) -> None:
    """Draw the axis of env steps, the grid, and the legend, or a note if the panel has no data."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    panel.set_xlim(0, max(1, steps) * 1.02)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    if not panel.has_data():
        panel.set_yticks([])
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": LARGE, "color": "gray"}
        panel.text(0.5, 0.5, "no data yet", transform=panel.transAxes, **style)
    elif panel.get_legend_handles_labels()[0]:
        style = {"ncols": 4, "frameon": False, "fontsize": SMALL}
        style |= {"columnspacing": 0.9, "handlelength": 1.1, "handletextpad": 0.5}
        panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1), borderaxespad=0.1, **style)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the curves of a run again from its metrics.json."""
    parser = argparse.ArgumentParser(prog="python -m dqn_runner.run.plots", description=main.__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="directory that contains metrics.json")
    run_dir: Path = parser.parse_args(arguments).run_dir
    if not (run_dir / json_io.METRICS).is_file():
        parser.error(
            f"{run_dir / json_io.METRICS} does not exist; give the directory of a run, which writes it when "
            "it ends. python -m dqn_runner.report shows a run that is running or was killed"
        )
    try:
        draw_training_curves(run_dir)
    except (UserError, OSError) as error:
        parser.exit(2, f"error: {error}\n")
    print(run_dir / CURVES)


if __name__ == "__main__":
    main()
