"""`python -m dqn_runner.runs DIR`: a table of all runs below a directory, with their state and score."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dqn_runner.core import exit_codes
from dqn_runner.io.output import ignore_output_errors
from dqn_runner.io.terminal import terminal
from dqn_runner.report.listing import Listing
from dqn_runner.report.terminal import table

WATCH_SECONDS = 2.0


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
        console = terminal()
        console.print(table(entries, console.width))
    else:
        print(f"there are no runs below {given.directory}")


def _watch(listing: Listing) -> None:
    from rich.live import Live

    console = terminal()
    try:
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                live.update(table(listing.entries(), console.width), refresh=True)
                time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
