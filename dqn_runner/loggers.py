"""Loggers that need no service: console, text log, JSON lines and CSV.

A logger part is what the user configures; `open` gives the sink of one run. A sink that writes records to
a file cuts the file back to where it was when the checkpoint was written, so a resumed run repeats nothing.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dqn_runner.files import AppendedFile
from dqn_runner.metrics import COLUMNS
from dqn_runner.registry import option
from dqn_runner.types import Record, RunInfo, State

_WIDE = 120
"""Columns of a terminal that has room for everything beside the progress bar."""

log = logging.getLogger("dqn_runner")
"""Messages of the run; the console and file loggers show them."""


class Logger(Protocol):
    """An open sink for the records of one run."""

    def write(self, record: Record) -> None:
        """Take one record."""
        ...

    def state_dict(self) -> State:
        """What `open` needs to go on in the same place."""
        ...

    def close(self, failed: bool) -> None:
        """Flush and let go; `failed` when an exception ended the run."""
        ...


@runtime_checkable
class Durable(Protocol):
    """A logger whose file a checkpoint points into."""

    def sync(self) -> None:
        """Make what was written durable; called from another thread than `write`."""
        ...


class LoggerPart(Protocol):
    """A kind of sink."""

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Logger:
        """The sink of one run; `state` is that of the checkpoint it goes on from."""
        ...


def format_record(record: Record) -> str:
    """One line for people."""
    shown = ("return", "return_mean", "return_std", "return_mean_100", "loss", "q_mean", "epsilon")
    names = {
        "return_mean_100": "return",
        "return_mean": "mean return",
        "return_std": "std",
        "q_mean": "Q",
    }
    values = {key.partition("/")[2]: value for key, value in record.values.items()}
    parts = [f"{names.get(key, key)} {values[key]:.4g}" for key in shown if key in values]
    if "steps_per_second" in values:
        parts.append(f"{values['steps_per_second']:,.0f} steps/s")
    if math.isfinite(values.get("eta", math.nan)):
        parts.append(f"ETA {timedelta(seconds=round(values['eta']))}")
    return f"{record.kind:5s} step {record.step:,} episode {record.episode:,}: {', '.join(parts)}"


@option("logging", "console", package="logging.console")
@dataclass(kw_only=True)
class Console:
    """A progress bar on a terminal, plain lines elsewhere."""

    progress_bar: bool = True
    """False prints plain lines on a terminal too."""

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Logger:
        """The console of this process."""
        if self.progress_bar and sys.stderr.isatty():
            return _ProgressConsole(info)
        return _TextLog(logging.StreamHandler(sys.stderr))


@option("logging", "file", package="logging.file")
@dataclass(kw_only=True)
class TextFile:
    """`logs/training.log`: every message, log line and traceback, with the time."""

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Logger:
        """The log file, appended to."""
        path = run_dir / "logs" / "training.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.handleError = _told_once(path)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
        return _TextLog(handler)


@option("logging", "jsonl", package="logging.jsonl")
@dataclass(kw_only=True)
class JsonLines:
    """`metrics.jsonl`: every record as it happens, one JSON object a line."""

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Logger:
        """The file, cut back to where the checkpoint left it."""
        return _JsonLines(AppendedFile(run_dir / "metrics.jsonl", state))


@option("logging", "csv", package="logging.csv")
@dataclass(kw_only=True)
class Csv:
    """`metrics.csv`: every record as a row; columns that a record does not have stay empty."""

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Logger:
        """The file, cut back to where the checkpoint left it."""
        sink = _Csv(AppendedFile(run_dir / "metrics.csv", state))
        if state is None or sink.file.is_new:
            sink.row(["kind", "step", "episode", *COLUMNS])
        return sink


def default_loggers() -> dict[str, LoggerPart]:
    """What a run logs to unless told otherwise."""
    return {"console": Console(), "file": TextFile(), "jsonl": JsonLines()}


class Sinks:
    """The loggers of one run, by name."""

    def __init__(self, parts: Mapping[str, LoggerPart]) -> None:
        """They are opened when the run begins."""
        self._parts = dict(parts)
        self._states: State = {}
        self._open: dict[str, Logger] = {}
        self._failing: set[str] = set()

    def open(self, run_dir: Path, info: RunInfo) -> None:
        """Open every logger, where the checkpoint left it if there was one."""
        log.setLevel(logging.INFO)
        log.propagate = False  # the loggers chosen here show the messages, and nobody else
        for name, part in self._parts.items():
            self._open[name] = part.open(run_dir, info, self._states.get(name))

    def write(self, record: Record) -> None:
        """Hand a record to every logger; one that cannot write is reported once, and the run goes on."""
        for name, logger in self._open.items():
            try:
                logger.write(record)
            except OSError as error:
                if name not in self._failing:
                    log.warning("logging.%s cannot write (%s); training goes on without it", name, error)
                self._failing.add(name)
            else:
                self._failing.discard(name)

    def sync(self) -> None:
        """Make durable what the states of the loggers point to."""
        for logger in self._open.values():
            if isinstance(logger, Durable):
                logger.sync()

    def state_dict(self) -> State:
        """Where each logger stands; one that this session does not use stands where it stood."""
        return self._states | {name: logger.state_dict() for name, logger in self._open.items()}

    def load_state_dict(self, state: State) -> None:
        """Take up each logger from there when it is opened; loggers that are new begin anew."""
        self._states = state

    def close(self, failed: bool) -> None:
        """Close all, the console last; one that cannot be closed is reported and does not stop the others."""
        for name, logger in reversed(self._open.items()):
            try:
                logger.close(failed)
            except Exception:
                log.exception("logging.%s could not be closed", name)
        self._open.clear()


class _TextLog:
    """Messages and records as lines of a logging handler."""

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler
        log.addHandler(handler)

    def write(self, record: Record) -> None:
        if record.kind != "episode":
            text = format_record(record)
            self._handler.handle(log.makeRecord(log.name, logging.INFO, "", 0, text, (), None))

    def state_dict(self) -> State:
        return {}

    def close(self, failed: bool) -> None:
        log.removeHandler(self._handler)
        self._handler.close()


class _ProgressConsole:
    """A rich progress bar with messages above it."""

    def __init__(self, info: RunInfo) -> None:
        from rich.console import Console as RichConsole
        from rich.logging import RichHandler
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        console = RichConsole(stderr=True)
        self._unit = info.unit
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn(info.unit),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task(info.name, total=info.total, text="")
        self._messages = _TextLog(RichHandler(console=console, show_path=False))
        self._progress.start()

    def write(self, record: Record) -> None:
        if record.kind == "eval":
            self._messages.write(record)
        elif record.kind == "train":
            position = record.episode if self._unit == "episodes" else record.step
            text = format_record(record).partition(": ")[2]
            if self._progress.console.width < _WIDE:
                text = ", ".join(part for part in text.split(", ") if part.startswith(("return", "ETA")))
            self._progress.update(self._task, completed=position, text=text)

    def state_dict(self) -> State:
        return {}

    def close(self, failed: bool) -> None:
        self._progress.stop()
        self._messages.close(failed)


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
    def __init__(self, file: AppendedFile) -> None:
        self.file = file
        self.state_dict, self.sync = file.state_dict, file.sync

    def row(self, cells: Iterable[object]) -> None:
        self.file.write(",".join(str(cell) for cell in cells) + "\n")

    def write(self, record: Record) -> None:
        if unknown := set(record.values) - set(COLUMNS):
            raise KeyError(f"metrics.COLUMNS does not name {', '.join(sorted(unknown))}")
        values = (record.values.get(key, "") for key in COLUMNS)
        self.row([record.kind, record.step, record.episode, *values])

    def close(self, failed: bool) -> None:
        self.file.close()


def _told_once(path: Path) -> Callable[..., None]:
    """What a handler does that cannot write: say so on the first failure, and let the run go on."""
    told: list[bool] = []

    def handle_error(record: logging.LogRecord) -> None:  # noqa: ARG001, logging names it
        if not told:
            told.append(True)
            print(f"{path} cannot be written ({sys.exc_info()[1]}); training goes on", file=sys.stderr)

    return handle_error
