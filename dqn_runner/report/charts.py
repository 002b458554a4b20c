"""Descriptions of charts, which are drawn twice: by uPlot in a browser, and by matplotlib as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from dqn_runner.run.thinning import Values, thin

MAX_POINTS = 1_500
"""Maximum number of points of a line on a page."""
DIGITS = 6
"""Significant digits of the numbers on a page."""

Style = Literal["line", "faint", "points", "star", "cross"]
"""How a line is drawn: its points are joined, also faintly, or marked only."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Numbers over the x values of a chart."""

    label: str
    y: Values
    """[points]; NaN where there is none."""
    color: int = 0
    """Index of one of the colours of the page."""
    style: Style = "line"


@dataclass(frozen=True, kw_only=True)
class Band:
    """A range over the x values of a chart."""

    label: str
    low: Values
    high: Values
    color: int = 0
    strong: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart with one x axis and one y axis."""

    id: str
    title: str
    x_label: str
    y_label: str
    x: Values
    """[points], ascending."""
    lines: Sequence[Line] = ()
    bands: Sequence[Band] = ()
    x_kind: Literal["number", "log", "time", "names"] = "number"
    x_names: Sequence[str] = ()
    """For x_kind `names`: the names of x = 0, 1, ..."""
    log_y: bool = False
    linked: str = ""
    """Charts with the same text here zoom together."""
    note: str = ""
    """A sentence under the chart."""
    wide: bool = False
    """Whether it needs the whole width of the page."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        shown = [*(line.y for line in self.lines), *(band.high for band in self.bands)]
        return not any(np.isfinite(y).any() for y in shown)

    def summary(self) -> str:
        """What the chart shows, in words."""
        known = ((line.label, line.y[np.isfinite(line.y)]) for line in self.lines)
        parts = [
            f"{name} from {y.min():.4g} to {y.max():.4g}, last {y[-1]:.4g}" for name, y in known if len(y)
        ]
        return f"{self.title}: {'; '.join(parts) or 'no data yet'}"

    def thinned(self, limit: int = MAX_POINTS) -> Chart:
        """The same chart with about `limit` points, among them the minimum and maximum of each line."""
        if len(self.x) <= limit:
            return self
        series = [line.y for line in self.lines if np.isfinite(line.y).any()]
        series += [y for band in self.bands for y in (band.low, band.high)]
        share = max(4, limit // max(1, len(series)))
        kept = np.unique(np.concatenate([thin(y, share) for y in series]))
        return replace(
            self,
            x=self.x[kept],
            lines=[replace(line, y=line.y[kept]) for line in self.lines],
            bands=[replace(band, low=band.low[kept], high=band.high[kept]) for band in self.bands],
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for the script of the page."""
        chart = self.thinned()
        return {
            "id": chart.id,
            "x": _numbers(chart.x, 10 if chart.x_kind == "time" else 9),
            "xKind": chart.x_kind,
            "xNames": list(chart.x_names),
            "xLabel": chart.x_label,
            "yLabel": chart.y_label,
            "logY": chart.log_y,
            "linked": chart.linked,
            "lines": [
                {"label": line.label, "y": _numbers(line.y), "color": line.color, "style": line.style}
                for line in chart.lines
            ],
            "bands": [
                {
                    "label": band.label,
                    "low": _numbers(band.low),
                    "high": _numbers(band.high),
                    "color": band.color,
                    "strong": band.strong,
                }
                for band in chart.bands
            ],
        }


def _numbers(values: Values, digits: int = DIGITS) -> list[float | int | None]:
    """Rounded numbers; null where there is none."""
    found: list[float | int | None] = []
    for value in values.tolist():
        if not np.isfinite(value):
            found.append(None)
            continue
        rounded = float(f"{value:.{digits}g}")
        found.append(int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded)
    return found


def arrays_of(points: Sequence[tuple[float, float]]) -> tuple[Values, Values]:
    """The x and y values of at least one point, by ascending x."""
    found = np.array(sorted(points), float)
    return found[:, 0], found[:, 1]


def on_common_x(points: Sequence[tuple[Values, Values]]) -> tuple[Values, list[Values]]:
    """The x values of all series (x, y) together, and the y values of each there; NaN elsewhere."""
    if not points:
        return np.zeros(0), []
    common = np.unique(np.concatenate([x for x, _ in points]))
    found: list[Values] = []
    for x, y in points:
        values = np.full(len(common), np.nan)
        values[np.searchsorted(common, x)] = y
        found.append(values)
    return common, found
