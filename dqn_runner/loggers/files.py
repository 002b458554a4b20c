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

from dqn_runner.core.log import log
from dqn_runner.core.records import Record, RunInfo
from dqn_runner.core.registry import option
from dqn_runner.core.state import State
from dqn_runner.io.entries import require_file
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


class _CsvState(FileState):
    columns: list[str]


@option("logging", "csv", package="logging.csv")
@dataclass(kw_only=True)
class Csv:
    """`metrics.csv`: every record, one row each; keys that a record lacks are empty.

    The columns are the metric keys that the run declares when the file is created. They stay the same when
    the run resumes.
    """

    state_type: ClassVar[type] = _CsvState

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Logger:
        """Open the file, truncated to its length at the checkpoint; without `state`, a new one."""
        columns = info.metric_keys if state is None else tuple(state["columns"])
        file = AppendedFile(run_dir / "metrics.csv", state)
        if file.is_new:
            file.write(_row(["kind", "step", "episode", *columns]))
        return _Csv(file, columns)


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
    def __init__(self, file: AppendedFile, columns: tuple[str, ...]) -> None:
        self._file, self._columns = file, columns
        self.sync = file.sync
        self._without_column: set[str] = set()

    def write(self, record: Record) -> None:
        if unknown := record.values.keys() - {*self._columns, *self._without_column}:
            log.warning(
                "metrics.csv has no column for %s; the values are left out", ", ".join(sorted(unknown))
            )
            self._without_column |= unknown
        values = (record.values.get(key, "") for key in self._columns)
        self._file.write(_row([record.kind, record.step, record.episode, *values]))

    def state_dict(self) -> State:
        return {**self._file.state_dict(), "columns": list(self._columns)}

    def close(self, failed: bool) -> None:
        self._file.close()


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
