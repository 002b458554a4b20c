"""The loggers of a run, opened and written as one; the failure of one does not affect the others."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from dqn_runner.core.exceptions import LoggerError, UserError
from dqn_runner.core.log import log
from dqn_runner.core.records import Record, RunInfo
from dqn_runner.core.registry import import_path
from dqn_runner.core.state import State
from dqn_runner.io.forks import end_if_forked
from dqn_runner.io.schema import problem_with
from dqn_runner.io.signals import as_error
from dqn_runner.loggers.base import Durable, Logger, LoggerPart, VideoLogger
from dqn_runner.loggers.console import Console
from dqn_runner.loggers.files import JsonLines, TextFile


def default_loggers() -> dict[str, LoggerPart]:
    """Loggers of a run that does not configure any."""
    return {"console": Console(), "file": TextFile(), "jsonl": JsonLines()}


_METHODS = ("write", "state_dict", "close")
"""What a logger must have."""


class LoggerGroup:
    """The loggers of one run, by name."""

    def __init__(self, parts: Mapping[str, LoggerPart]) -> None:
        """Store the settings of the loggers, by name; `open` opens them."""
        self._parts = dict(parts)
        self._states: State = {}
        self._open: dict[str, Logger] = {}
        self._failing: set[str] = set()
        self.is_writing = False
        """Whether a logger is writing, or has failed: no state can be saved then."""

    def open(self, run_dir: Path, info: RunInfo) -> None:
        """Open every logger, with its state if one was loaded; raises LoggerError, which names the logger."""
        log.setLevel(logging.INFO)
        log.propagate = False  # only the loggers of the run show the messages
        for name, part in self._parts.items():
            try:
                logger: Any = part.open(run_dir, info, self._states.get(name))
                if missing := [each for each in _METHODS if not callable(getattr(logger, each, None))]:
                    raise TypeError(f"the {type(logger).__name__} that it returned has no {missing[0]}()")
            except (OSError, UserError):
                raise
            except BaseException as raised:
                raise _with_name(raised, name, part, "open") from raised
            self._open[name] = logger

    def write(self, record: Record) -> None:
        """Pass a record to every logger; a logger that cannot write is reported once, until it can again.

        Raises LoggerError for another error than an OSError.
        """
        self.is_writing = True
        for name, logger in self._open.items():
            try:
                logger.write(record)
            except OSError as error:
                end_if_forked(error)
                if name not in self._failing:
                    log.warning("logging.%s cannot write (%s); training continues without it", name, error)
                self._failing.add(name)
            except UserError:
                raise
            except BaseException as raised:
                raise _with_name(raised, name, logger, "write") from raised
            else:
                self._failing.discard(name)
        self.is_writing = False

    def write_video(self, path: Path, step: int) -> None:
        """Pass a video to the loggers that show videos; an error is only reported."""
        for name, logger in self._open.items():
            if isinstance(logger, VideoLogger):
                try:
                    logger.write_video(path, step)
                except Exception as error:
                    end_if_forked(error)
                    log.warning("logging.%s cannot show %s: %s", name, path.name, error)

    def sync(self) -> None:
        """Make durable the files to which the states of the loggers refer."""
        for logger in self._open.values():
            if isinstance(logger, Durable):
                logger.sync()

    def state_dict(self) -> State:
        """Return the state of each logger by name; those not used in this session keep their last state.

        Raises LoggerError, or UserError for one that is not a dictionary.
        """
        return self._states | {name: _state_of(name, logger) for name, logger in self._open.items()}

    def load_state_dict(self, state: State) -> None:
        """Store the states with which `open` opens the loggers; a logger without a state starts new.

        Raises ValueError for a state that its logger cannot have stored.
        """
        for name, part in self._parts.items():
            schema = getattr(part, "state_type", State)
            if name in state and (problem := problem_with(state[name], schema)):
                raise ValueError(f"state.progress.loggers.{name}.{problem}")
            if name in state and hasattr(part, "state_type") and state[name].get("offset", 0) < 0:
                raise ValueError(f"state.progress.loggers.{name}.offset is negative")
        self._states = state

    def close(self, failed: bool) -> None:
        """Close all loggers, in reverse order; errors are logged and do not affect the others."""
        for name, logger in reversed(self._open.items()):
            try:
                logger.close(failed)
            except Exception as error:
                end_if_forked(error)
                log.exception("logging.%s could not be closed", name)
        self._open.clear()


def _with_name(raised: BaseException, name: str, owner: object, method: str) -> LoggerError:
    """What a logger raised, as an error that names it; raises it if it is due to a signal."""
    error = as_error(raised)
    where = f"{import_path(type(owner))}.{method}"
    return LoggerError(f"logging.{name} ({where}) raised {type(error).__name__}: {error}")


def _state_of(name: str, logger: Logger) -> State:
    try:
        state: Any = logger.state_dict()
    except (OSError, UserError):
        raise
    except BaseException as raised:
        raise _with_name(raised, name, logger, "state_dict") from raised
    if not isinstance(state, dict):
        raise UserError(
            f"logging.{name}: its state_dict() returned a {type(state).__name__}, not a dictionary"
        )
    return cast("State", state)
