"""Pages from templates: one HTML file with its styles, scripts, data and pictures, which loads nothing.

Everything that comes from a run is escaped: texts by jinja2, data as JSON without characters that HTML knows.
The content security policy of a page allows its own script and styles only, by their hashes, so that a text
that was not escaped could neither run nor load anything.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqn_runner.report.charts import Chart
from dqn_runner.report.pictures import picture
from dqn_runner.run.plots import COLORS

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"
VENDOR = HERE / "vendor"
UNKNOWN = "\N{EN DASH}"
"""What a page shows in the place of a number that is not known."""


def render(template: str, *, charts: Sequence[Chart], live: bool = False, **values: Any) -> str:
    """A page from a template and its values.

    With `live`, it is a page of the server: it may ask the server for news, and has no pictures for readers
    without JavaScript, who cannot see news either.
    """
    shown = [chart for chart in charts if not chart.is_empty]
    style, script = _style(), _script()
    data = {"charts": [chart.to_json() for chart in shown], "colors": COLORS, "live": live}
    return (
        _templates()
        .get_template(template)
        .render(
            values,
            charts={chart.id: chart for chart in shown},
            pictures={} if live else {chart.id: picture(chart) for chart in shown},
            policy=_policy(style, script, live),
            style=style,
            script=script,
            data=as_data(data),
            license=(VENDOR / "uPlot-LICENSE").read_text(),
            live=live,
            made=datetime.now(UTC),
        )
    )


def as_data(value: Any) -> str:
    """JSON that can stand in a script element: ASCII, without characters that could end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def number(value: Any, digits: int = 4) -> str:
    """A number for readers: few digits, and separators in whole numbers."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return UNKNOWN
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e12):
        return f"{int(value):,}"
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """A time span for readers."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else str(timedelta(seconds=round(seconds)))


def moment(seconds: float | None) -> str:
    """A time for readers, in UTC."""
    if seconds is None:
        return UNKNOWN
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def sparkline(values: Sequence[float], width: int = 96, height: int = 24) -> str:
    """The points of a small curve, for the `points` of an SVG polyline; empty with fewer than two values."""
    known = [value for value in values if math.isfinite(value)]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    scale = (height - 4) / (high - low) if high > low else 0.0
    last = len(known) - 1
    places = ((2 + i * (width - 4) / last, height - 2 - (v - low) * scale) for i, v in enumerate(known))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


@functools.cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "duration": duration,
        "moment": moment,
        "sparkline": sparkline,
    }
    return environment


@functools.cache
def _style() -> str:
    return (VENDOR / "uPlot.min.css").read_text() + (TEMPLATES / "page.css").read_text()


@functools.cache
def _script() -> str:
    return (VENDOR / "uPlot.iife.min.js").read_text() + (TEMPLATES / "page.js").read_text()


def _policy(style: str, script: str, live: bool) -> str:
    """The content security policy of a page."""
    rules = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": _hash(style),
        "script-src": _hash(script),
        "connect-src": "'self'" if live else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
