"""Charts as SVG pictures, for readers without JavaScript and for print."""

from __future__ import annotations

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# (matplotlib's methods take untyped keyword arguments)
import base64
import io
import math
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from dqn_runner.report.charts import Chart, Line
from dqn_runner.run.plots import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENGINEERING = 1_000
"""From this number on, an axis has prefixes as in 20k."""
PICTURE_POINTS = 400
SIZE, WIDE = (5.4, 3.0), (11.2, 3.2)
"""Inches, at 100 pixels each: text of 9 points has 12.5 pixels."""
LEGEND_ROW = 0.18
"""Inches of height that a row of the legend takes."""
MOST_NAMED = 14
"""The most lines that have names."""
MARKERS = {"points": "o", "star": "*", "cross": "X"}

_lock = threading.Lock()
"""matplotlib's settings belong to the process."""


def data_url(content: bytes, kind: str) -> str:
    """A file as part of a page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture(chart: Chart) -> str:
    """The chart as the data URL of an SVG picture."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": chart.id, "font.size": 9}
    settings |= {"font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "path.simplify": True}
    with _lock, matplotlib.rc_context(settings):
        figure = Figure(figsize=WIDE if chart.wide else SIZE, dpi=100, layout="constrained")
        FigureCanvasSVG(figure)
        panel = figure.subplots()
        rows = _draw(panel, chart.thinned(PICTURE_POINTS))
        width, height = WIDE if chart.wide else SIZE
        figure.set_size_inches(width, height + LEGEND_ROW * max(0, rows - 1))
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return data_url(content.getvalue(), "image/svg+xml")


def _draw(panel: Axes, chart: Chart) -> int:
    """Draw a chart; returns the number of rows of its legend."""
    for band in chart.bands:
        style: dict[str, Any] = {"color": COLORS[band.color % len(COLORS)], "linewidth": 0}
        alpha = 0.28 if band.strong else 0.13
        panel.fill_between(chart.x, band.low, band.high, alpha=alpha, label=_text(band.label), **style)
    for line in chart.lines:
        _draw_line(panel, chart, line)
    panel.set_xlabel(_text(chart.x_label), parse_math=False)
    panel.set_ylabel(_text(chart.y_label), parse_math=False)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    if chart.log_y:
        panel.set_yscale("log")
    _draw_x_axis(panel, chart)
    handles, labels = panel.get_legend_handles_labels()
    if handles and len(handles) <= MOST_NAMED:
        room = 15 * (WIDE if chart.wide else SIZE)[0]  # in characters, of which a line needs about 7
        columns = int(min(3, max(1, room // (max(map(len, labels)) + 7))))
        legend = panel.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1), ncols=columns, frameon=False, fontsize=9
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        return math.ceil(len(handles) / columns)
    return 0


def _draw_line(panel: Axes, chart: Chart, line: Line) -> None:
    there = np.isfinite(line.y)
    style: dict[str, Any] = {"color": COLORS[line.color % len(COLORS)], "label": _text(line.label)}
    if marker := MARKERS.get(line.style):
        size = 4 if marker == "o" else 9
        panel.plot(chart.x[there], line.y[there], marker, markersize=size, **style)
    else:
        faint = line.style == "faint"
        marker = "o" if there.sum() <= 2 else ""
        width, alpha = (0.6, 0.45) if faint else (1.6, 1.0)
        panel.plot(chart.x[there], line.y[there], marker=marker, linewidth=width, alpha=alpha, **style)


def _draw_x_axis(panel: Axes, chart: Chart) -> None:
    from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

    if chart.x_kind == "log":
        panel.set_xscale("log")
        panel.xaxis.set_minor_formatter(NullFormatter())
    elif chart.x_kind == "names":
        panel.set_xlim(-0.5, len(chart.x_names) - 0.5)
        panel.xaxis.set_major_locator(FixedLocator(range(len(chart.x_names))))
        room = max(4, int((WIDE if chart.wide else SIZE)[0] * 13 / max(1, len(chart.x_names))))
        lines = ("\n".join(_text(line, room) for line in name.split("\n")) for name in chart.x_names)
        panel.set_xticklabels(list(lines), parse_math=False)
    elif chart.x_kind == "time":
        panel.xaxis.set_major_locator(MaxNLocator(nbins=4))
        panel.xaxis.set_major_formatter(FuncFormatter(_clock))
    else:
        panel.xaxis.set_major_locator(MaxNLocator(nbins=6))
        if len(chart.x) and np.abs(chart.x).max() >= ENGINEERING:
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))


def _clock(seconds: float, _: Any) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%b %d\n%H:%M:%S")


def _text(text: str, longest: int = 60) -> str:
    """A label that is neither too long nor hidden: matplotlib leaves out labels that begin with `_`."""
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return f" {short}" if short.startswith("_") else short
