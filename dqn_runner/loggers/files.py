"""Loggers that write files in the run directory: text log, JSON Lines and CSV."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dqn_runner.core.records import Record, RunInfo
from dqn_runner.core.registry import option
from dqn_runner.core.state import State
from dqn_runner.io.entries import require_file
from dqn_runner.io.files import write_atomically
from dqn_runner.loggers.appended_file import AppendedFile, FileState
from dqn_runner.loggers.base import Logger
from dqn_runner.loggers.text_log import TextLog


@option("logging", "file", package="logging.file")
@dataclass(kw_only=True)
class TextFile:
    """`logs/training.log`: every message, metrics line and traceback, with its time."""

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Logger:
        """Open the log file for appending."""
        path = run_dir / "logs" / "training.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        require_file(path)
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.handleError = _report_first_error(path)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
        return TextLog(handler)


@option("logging", "jsonl", package="logging.jsonl")
@dataclass(kw_only=True)
class JsonLines:
    """`metrics.jsonl`: every record, one JSON object per line, written immediately."""

    state_type: ClassVar[type] = FileState

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Logger:
        """Open the file, truncated to its length at the checkpoint; without `state`, a new one."""
        return _JsonLines(AppendedFile(run_dir / "metrics.jsonl", state))


_FIRST = ("kind", "step", "episode")
"""The first columns of metrics.csv."""


class _CsvState(FileState):
    columns: list[str]


@option("logging", "csv", package="logging.csv")
@dataclass(kw_only=True)
class Csv:
    """`metrics.csv`: every record, one row each; keys that a record lacks are empty.

    The columns are the metric keys that the run declares when the file is created, then those of the
    environment. A new key adds the last column, to all rows.
    """

    state_type: ClassVar[type] = _CsvState

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Logger:
        """Open the file, truncated to its length at the checkpoint; without `state`, a new one."""
        columns = list(info.metric_keys) if state is None else list(state["columns"])
        path = run_dir / "metrics.csv"
        require_file(path)
        if state is not None and path.exists():
            _cut_columns(path, len(_FIRST) + len(columns))
        file = AppendedFile(path, state)
        if file.is_new:
            file.write(_row([*_FIRST, *columns]))
        return _Csv(path, file, columns)


class _JsonLines:
    def __init__(self, file: AppendedFile) -> None:
        self._file = file
        self.state_dict, self.sync = file.state_dict, file.sync

    def write(self, record: Record) -> None:
        line: dict[str, Any] = {"kind": record.kind, "step": record.step, "episode": record.episode}
        values = {key: value if math.isfinite(value) else None for key, value in record.values.items()}
        self._file.write(json.dumps({**line, **values}, allow_nan=False) + "\n")

    def close(self, failed: bool) -> None:
        self._file.close()


class _Csv:
    """New columns rewrite the file; a state says how long the file was with the columns that it had then."""

    def __init__(self, path: Path, file: AppendedFile, columns: list[str]) -> None:
        self._path, self._file, self._columns = path, file, columns
        self._replaced: list[AppendedFile] = []
        """Closed at the end: another thread may be making one of them durable."""

    def write(self, record: Record) -> None:
        new = [key for key in record.values if key not in self._columns]
        try:
            if new:
                self._add_columns(new)
        finally:  # on a full disk, the row is kept without the values that have no column
            values = (record.values.get(key, "") for key in self._columns)
            self._file.write(_row([record.kind, record.step, record.episode, *values]))

    def sync(self) -> None:
        self._file.sync()

    def state_dict(self) -> State:
        return {**self._file.state_dict(), "columns": list(self._columns)}

    def _add_columns(self, keys: list[str]) -> None:
        self._file.write("")  # what a full disk has rejected before
        header, *rows = self._path.read_text(encoding="utf-8").splitlines()
        empty = "," * len(keys)
        lines = [",".join([header, *keys]), *(row + empty for row in rows)]
        content = "".join(f"{line}\n" for line in lines).encode()
        write_atomically(self._path, content)
        self._replaced.append(self._file)
        self._file = AppendedFile(self._path, {"offset": len(content), "unwritten": ""})
        self._columns += keys

    def close(self, failed: bool) -> None:
        for file in self._replaced:
            file.close()
        self._file.close()


def _cut_columns(path: Path, count: int) -> None:
    """Remove the columns after the first `count`, which were added later than the state of a resumed run."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and lines[0].count(",") >= count:
        cut = [",".join(line.rstrip("\n").split(",")[:count]) + "\n" for line in lines]
        write_atomically(path, "".join(cut).encode())


def _row(cells: Iterable[object]) -> str:
    return ",".join(str(cell) for cell in cells) + "\n"


def _report_first_error(path: Path) -> Callable[..., None]:
    """Return an error handler for a log file: it reports the first error and ignores the others."""
    reported: list[bool] = []

    def handle_error(record: logging.LogRecord) -> None:  # noqa: ARG001, the name is given by logging
        if not reported:
            reported.append(True)
            print(f"{path} cannot be written ({sys.exc_info()[1]}); training continues", file=sys.stderr)

    return handle_error
