"""Texts and tables on a terminal."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 160
"""Columns of a file or a pipe."""


def terminal() -> Console:
    """The terminal; a file or a pipe gets lines that are wide enough for the settings of a run."""
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may know ASCII only
    width = None if sys.stdout.isatty() else FILE_WIDTH
    return Console(highlight=False, markup=False, emoji=False, width=width)


def can_redraw() -> bool:
    """Whether standard output is a terminal on which lines can be replaced by others.

    The terminal of a CI service is a log; one without Unicode cannot show what shortens a line.
    """
    stream = sys.stdout
    return (
        stream is not None
        and stream.isatty()
        and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
        and not os.environ.get("CI")
        and str(stream.encoding).lower().startswith("utf")
    )


def printable(text: str) -> str:
    """A name or a setting without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def number(value: float | None) -> str:
    """A return or a score in a column, with three digits at least; empty if it is not known."""
    if value is None:
        return ""
    return f"{value:,.1f}" if value == 0 or abs(value) >= 10 else f"{value:.3g}"


def precise(value: float) -> str:
    """A return or a score with two decimals, or with three digits where that is more."""
    return f"{value:.2f}" if value == 0 or abs(value) >= 1 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds; empty if they are not known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
