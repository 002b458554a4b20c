"""`python -m dqn_runner.report PATH [PATH ...]`: a page about a run, a sweep, or a comparison."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dqn_runner.core import exit_codes
from dqn_runner.core.exceptions import NoRoomError, UserError
from dqn_runner.core.secrets import redact
from dqn_runner.io.files import no_room_error
from dqn_runner.report.server import serve
from dqn_runner.report.write import write_report


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a page about a run, a sweep, or a comparison of several: one HTML file that loads nothing."""
    parser = argparse.ArgumentParser(prog="python -m dqn_runner.report", description=main.__doc__)
    parser.add_argument(
        "paths",
        type=Path,
        nargs="*",
        metavar="PATH",
        help="directory of a run, of a sweep, or with several of them below; more than one are compared",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the page (default: report.html in PATH; of several, in the current directory)",
    )
    parser.add_argument(
        "--by", metavar="KEY", help="group the runs of a comparison by this setting, as in --by agent"
    )
    parser.add_argument(
        "--serve", type=Path, metavar="DIR", help="show all runs below DIR in a browser, during training"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address of --serve (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8008, help="port of --serve (default: %(default)s)")
    given = parser.parse_args(arguments)
    if bool(given.paths) == (given.serve is not None):
        parser.error("give the directory of a run or of a sweep, or --serve DIR")
    if given.serve is not None and (given.output or given.by):
        parser.error("-o and --by are for a page that is written; leave them out with --serve")
    try:
        if given.serve is not None:
            serve(given.serve, given.host, given.port)
        else:
            for path in write_report(given.paths, given.output, given.by):
                print(path)
    except (UserError, OSError) as error:
        print(f"error: {redact(' '.join(str(error).split()))}", file=sys.stderr)
        full = isinstance(error, NoRoomError) or no_room_error(error) is not None
        sys.exit(exit_codes.DISK_FULL if full else exit_codes.USAGE_ERROR)


if __name__ == "__main__":
    main()
