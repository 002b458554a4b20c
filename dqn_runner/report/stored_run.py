"""Everything that a run directory tells about a run; reading it imports nothing that the run names."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dqn_runner.checkpointing.names import CHECKPOINTS
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.secrets import redact
from dqn_runner.io import json_io
from dqn_runner.io.entries import is_file
from dqn_runner.io.lock import LockHeldError, reject_if_locked
from dqn_runner.report.history import History, read_history
from dqn_runner.run.compatibility import leaves
from dqn_runner.run.last_records import RECORDS
from dqn_runner.run.provenance import RUN, env_of, read_provenance
from dqn_runner.run.timeline import FAILED, TIMELINE, Happening, read_timeline

LOG = Path("logs") / "training.log"
EVALUATION = "eval.json"
MARKS = (RUN, RECORDS, json_io.METRICS, CHECKPOINTS, TIMELINE)
"""A directory that contains one of these is the directory of a run."""
RUNNING, FINISHED, STOPPED, FAILED_RUN = "running", "finished", "stopped", "failed"
LOG_TAIL = 400_000
"""Bytes at the end of the log in which warnings are looked for."""
MOST_WARNINGS = 50

_WARNING = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d{3} (WARNING|ERROR|CRITICAL)\s+(.*)$")
_ANY_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")


@dataclass(frozen=True)
class LogLine:
    """A warning or an error in the log of a run."""

    time: str
    level: str
    text: str
    """The message, and the traceback if there is one."""


@dataclass(frozen=True)
class StoredRun:
    """A run directory."""

    directory: Path
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The stored configuration; empty for a run of a script."""
    sessions: Sequence[Mapping[str, Any]] = ()
    """The sessions that run.json records, oldest first."""
    reader: Callable[[Path], History] = read_history
    """Reads the history of the directory of a run."""

    @cached_property
    def history(self) -> History:
        """What the run has measured."""
        return self.reader(self.directory)

    @cached_property
    def timeline(self) -> list[Happening]:
        """What happened to the run."""
        return read_timeline(self.directory)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration by dotted key."""
        return {".".join(path): value for path, value in leaves(self.config).items()}

    @property
    def overrides(self) -> list[str]:
        """The overrides of the last session."""
        return texts(self.sessions[-1].get("overrides")) if self.sessions else []

    @property
    def name(self) -> str:
        """A short name of the run."""
        return self.directory.resolve().name

    @property
    def env(self) -> str:
        """The environment."""
        return env_of(self.config) or "unknown environment"

    @cached_property
    def state(self) -> str:
        """Whether the run is running, finished, stopped or failed."""
        return state_of(self.directory, self.timeline, self.history.finished)

    @cached_property
    def evaluation(self) -> Mapping[str, Any] | None:
        """The content of the eval.json of `mode=eval`; None if there is none, or it is of another run."""
        path = self.directory / EVALUATION
        if not is_file(path):
            return None
        try:
            document = json_io.read_json(path)
            if _is_of_another_run(Path(document["checkpoint"]), self.directory):
                return None
            numbers = [document["step"], document["return_mean"], *(document["return_ci95"] or ())]
            return document if len([float(number) for number in numbers]) in (2, 4) else None
        except (UserError, KeyError, TypeError, ValueError):
            return None

    def warnings(self) -> list[LogLine]:
        """The last warnings and errors of the log, without secrets."""
        path = self.directory / LOG
        if not is_file(path):
            return []
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL))
            lines = file.read().decode(errors="replace").splitlines()
        found: deque[tuple[str, str, list[str]]] = deque(maxlen=MOST_WARNINGS)
        inside = False
        for line in lines:
            if match := _WARNING.match(line):
                found.append((match[1], match[2], [match[3]]))
                inside = True
            elif _ANY_LINE.match(line):
                inside = False
            elif inside:
                found[-1][2].append(line)
        return [LogLine(time, level, redact("\n".join(text))) for time, level, text in found]


def texts(stored: Any) -> list[str]:
    """The items of a stored list as texts; none if it is no list."""
    return list(map(str, stored)) if isinstance(stored, list) else []  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def is_run(directory: Path) -> bool:
    """Whether a directory is that of a run."""
    return any(os.path.lexists(directory / mark) for mark in MARKS)


def _is_of_another_run(checkpoint: Path, directory: Path) -> bool:
    """Whether a checkpoint is of another run than that in `directory`.

    Where it does not exist any more, the run was moved; one that was copied has the same run.json.
    """
    if not checkpoint.exists() or checkpoint.resolve().is_relative_to(directory.resolve()):
        return False
    files = (checkpoint.parent.parent / RUN, directory / RUN)
    return not all(map(is_file, files)) or len({file.read_bytes() for file in files}) > 1


def read_run(directory: Path, reader: Callable[[Path], History] = read_history) -> StoredRun:
    """The run in `directory`, whose history `reader` reads.

    Raises UserError if there is none, and DamagedError if its run.json is none.
    """
    if not is_run(directory):
        raise UserError(f"{directory} is not the directory of a run: it has none of {', '.join(MARKS)}")
    if not (directory / RUN).exists():
        return StoredRun(directory, reader=reader)
    document = read_provenance(directory / RUN)
    return StoredRun(directory, document["config"], document["sessions"], reader)


def state_of(directory: Path, timeline: Sequence[Happening], finished: str | None) -> str:
    """Whether a run is running, finished, stopped or failed; `finished` is why it is over."""
    try:
        reject_if_locked(directory)
    except LockHeldError:
        return RUNNING
    except (UserError, OSError):
        pass  # its lock cannot be checked, as in a directory of another user
    if finished is not None:
        return FINISHED
    return FAILED_RUN if timeline and timeline[-1].event == FAILED else STOPPED
