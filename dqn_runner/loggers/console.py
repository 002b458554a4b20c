"""Console logger: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from dqn_runner.core.records import Record, RunInfo
from dqn_runner.core.registry import option
from dqn_runner.core.settings import check_settings
from dqn_runner.core.state import State
from dqn_runner.loggers.base import Logger
from dqn_runner.loggers.text_log import TextLog, format_record

_WIDE = 120
"""Width of a terminal, in columns, that fits all values beside the progress bar."""


@option("logging", "console", package="logging.console")
@dataclass(kw_only=True)
class Console:
    """A progress bar on a terminal, plain lines elsewhere."""

    progress_bar: bool = True
    """False prints plain lines on a terminal too."""

    __post_init__ = check_settings

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Logger:
        """Open the console of this process."""
        if self.progress_bar and sys.stderr.isatty():
            return _ProgressConsole(info)
        return TextLog(logging.StreamHandler(sys.stderr))


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
        self._messages = TextLog(RichHandler(console=console, show_path=False))
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
