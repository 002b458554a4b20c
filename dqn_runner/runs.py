"""`python -m dqn_runner.runs DIR`: a table of all runs below a directory, with their state and score."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dqn_runner.core import exit_codes
from dqn_runner.io.output import ignore_output_errors
from dqn_runner.report.listing import Entry, Listing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WATCH_SECONDS = 2.0
FILE_WIDTH = 160
NUMBERS = 52
"""Width of the columns with numbers and the state, at most."""
STYLES = {"running": "green", "failed": "red", "stopped": "yellow", "finished": "default"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of all runs below a directory: state, env steps, score, time left, settings."""
    parser = argparse.ArgumentParser(prog="python -m dqn_runner.runs", description=main.__doc__)
    parser.add_argument("directory", type=Path, nargs="?", default=Path(), metavar="DIR")
    parser.add_argument("--watch", action="store_true", help="print it again every two seconds, until Ctrl-C")
    given = parser.parse_args(arguments)
    if not given.directory.is_dir():
        print(f"error: {given.directory} is not a directory", file=sys.stderr)
        sys.exit(exit_codes.USAGE_ERROR)
    ignore_output_errors()
    listing = Listing(given.directory)
    if given.watch:
        _watch(listing)
    elif entries := listing.entries():
        console = _console()
        console.print(table(entries, console.width))
    else:
        print(f"there are no runs below {given.directory}")


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
            Text(_printable(entry.path)),
            Text(entry.state, style=STYLES.get(entry.state, "default")),
            f"{entry.step:,}",
            _number(entry.score),
            _number(entry.best),
            _duration(entry.eta) if entry.state == "running" else "",
            Text(_printable(entry.overrides)),
        )
    return found


def _console() -> Console:
    """The terminal; a file or a pipe gets lines that are wide enough for the settings."""
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may know ASCII only
    return Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)


def _watch(listing: Listing) -> None:
    from rich.live import Live

    console = _console()
    try:
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                live.update(table(listing.entries(), console.width), refresh=True)
                time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return


def _printable(text: str) -> str:
    """A name or a setting without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def _duration(seconds: float | None) -> str:
    """Hours, minutes and seconds."""
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


if __name__ == "__main__":
    main()
