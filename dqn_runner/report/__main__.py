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
        "-o", "--output", type=Path, metavar="FILE", help="the page (default: report.html in PATH)"
    )
    parser.add_argument(
        "--by", metavar="KEY", help="group the runs of a comparison by this setting, as in --by agent"
    )
    given = parser.parse_args(arguments)
    if not given.paths:
        parser.error("give the directory of a run or of a sweep")
    try:
        for path in write_report(given.paths, given.output, given.by):
            print(path)
    except (UserError, OSError) as error:
        print(f"error: {redact(' '.join(str(error).split()))}", file=sys.stderr)
        full = isinstance(error, NoRoomError) or no_room_error(error) is not None
        sys.exit(exit_codes.DISK_FULL if full else exit_codes.USAGE_ERROR)


if __name__ == "__main__":
    main()
