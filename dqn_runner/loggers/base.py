"""Protocols of loggers.

A LoggerPart holds the settings of a logger; its `open` returns the Logger of one run. A logger that writes
metrics to a file truncates it, when a run resumes, to its length at the time of the checkpoint, so that no
record is written twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from dqn_runner.core.records import Record, RunInfo
from dqn_runner.core.state import State


class Logger(Protocol):
    """Receives the records of one run."""

    def write(self, record: Record) -> None:
        """Write a record; an OSError is reported and does not stop the run."""
        ...

    def state_dict(self) -> State:
        """Return what `LoggerPart.open` needs to continue from here."""
        ...

    def close(self, failed: bool) -> None:
        """Flush and close; `failed` means that an exception ended the run."""
        ...


@runtime_checkable
class Durable(Protocol):
    """A logger whose state refers to a position in a file."""

    def sync(self) -> None:
        """Make durable what was written; called from another thread than `write`."""
        ...


@runtime_checkable
class VideoLogger(Protocol):
    """A logger that shows videos."""

    def write_video(self, path: Path, step: int) -> None:
        """Take a copy of a video (.mp4 or .gif) of an evaluation at env step `step`."""
        ...


class LoggerPart(Protocol):
    """Settings of a logger.

    A part may have an attribute `state_type`, the type of its stored state, which is then checked when a run
    resumes.
    """

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Logger:
        """Open the logger for a run; `state` is that of the checkpoint it resumes from, if any."""
        ...
