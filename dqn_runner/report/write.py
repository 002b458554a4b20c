"""Writes the page that fits the given paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dqn_runner.core.exceptions import UserError
from dqn_runner.io.files import make_directory, write_atomically
from dqn_runner.report.comparison_page import comparison_of
from dqn_runner.report.found_runs import is_sweep
from dqn_runner.report.run_page import run_page
from dqn_runner.report.stored_run import is_run, read_run
from dqn_runner.sweep.names import REPORT

COMPARISON = "comparison.html"
"""The page of `--by` in the directory of a sweep, which writes its own report."""


def write_report(paths: Sequence[Path], output: Path | None, by: str | None) -> list[Path]:
    """Write a page about a run, a sweep, or a comparison of several; return the files that were written.

    A comparison also has its table as a CSV and a LaTeX file beside the page. Raises UserError if a path has
    no run, and if `by` names no setting.
    """
    is_one_sweep = len(paths) == 1 and is_sweep(paths[0])
    name = COMPARISON if is_one_sweep and by is not None else REPORT
    page = output or (paths[0] / name if len(paths) == 1 else Path(name))
    if page.is_dir():
        raise UserError(f"{page} is a directory; give -o the name of a file")
    if len(paths) == 1 and is_run(paths[0]):
        if by is not None:
            raise UserError("--by groups the runs of a comparison, but one run was given")
        return [_write(page, run_page(read_run(paths[0])))]
    if is_one_sweep and by is None:
        from dqn_runner.report.sweep_page import sweep_page  # late: it imports Optuna
        from dqn_runner.sweep.study import read_study

        return [_write(page, sweep_page(read_study(paths[0]), paths[0]))]
    if page.suffix in (".csv", ".tex"):
        raise UserError(f"{page} is the name of a table beside the page; give -o a name that ends in .html")
    found = comparison_of(paths, by)
    tables = {".csv": found.csv, ".tex": found.latex}
    return [
        _write(page, found.html),
        *(_write(page.with_suffix(suffix), text) for suffix, text in tables.items()),
    ]


def _write(path: Path, text: str) -> Path:
    make_directory(path.absolute().parent)
    write_atomically(path, text.encode())
    return path
