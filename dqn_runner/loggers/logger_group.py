"""Loggers that need no service: console, text log, JSON lines and CSV.

A logger part is what the user configures; `open` gives the sink of one run. A sink that writes records to
a file cuts the file back to where it was when the checkpoint was written, so a resumed run repeats nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from dqn_runner.core.log import log
from dqn_runner.core.records import Record, RunInfo
from dqn_runner.core.state import State
from dqn_runner.loggers.base import Durable, Logger, LoggerPart
from dqn_runner.loggers.console import Console
from dqn_runner.loggers.files import JsonLines, TextFile


def default_loggers() -> dict[str, LoggerPart]:
    """What a run logs to unless told otherwise."""
    return {"console": Console(), "file": TextFile(), "jsonl": JsonLines()}


class LoggerGroup:
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
