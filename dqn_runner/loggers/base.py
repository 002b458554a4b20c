"""Loggers that need no service: console, text log, JSON lines and CSV.

A logger part is what the user configures; `open` gives the sink of one run. A sink that writes records to
a file cuts the file back to where it was when the checkpoint was written, so a resumed run repeats nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from dqn_runner.core.records import Record, RunInfo
from dqn_runner.core.state import State


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
