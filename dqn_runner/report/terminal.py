"""Tables of runs on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from dqn_runner.io.terminal import duration, number, printable
from dqn_runner.report.listing import Entry

if TYPE_CHECKING:
    from rich.table import Table

NUMBERS = 52
"""Width of the columns with numbers and the state, at most."""
STYLES = {"running": "green", "failed": "red", "stopped": "yellow", "finished": "default"}


def table(entries: Iterable[Entry], width: int) -> Table:
    """The table, `width` characters wide, the latest run last, as it is read on a terminal."""
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False, header_style="bold")
    rows = sorted(entries, key=lambda entry: entry.changed)
    path = min(width // 3, max((len(entry.path) for entry in rows), default=0))
    found.add_column("run", overflow="fold", width=max(path, 3))
    found.add_column("state", no_wrap=True)
    for name in ("steps", "score", "best", "left"):
        found.add_column(name, justify="right", no_wrap=True)
    found.add_column("settings", overflow="ellipsis", no_wrap=True, max_width=max(8, width - path - NUMBERS))
    for entry in rows:
        found.add_row(
            Text(printable(entry.path)),
            Text(entry.state, style=STYLES.get(entry.state, "default")),
            f"{entry.step:,}",
            number(entry.score),
            number(entry.best),
            duration(entry.eta) if entry.state == "running" else "",
            Text(printable(entry.overrides)),
        )
    return found


def with_what_differs(entries: Iterable[Entry]) -> list[Entry]:
    """The same runs, each with those of its settings that are not common to all."""
    found = list(entries)
    words = [entry.overrides.split() for entry in found]
    common = set(words[0]).intersection(*words[1:]) if len(found) > 1 else set[str]()
    return [
        replace(entry, overrides=" ".join(word for word in own if word not in common))
        for entry, own in zip(found, words, strict=True)
    ]
