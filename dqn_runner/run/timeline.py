"""timeline.jsonl: what happened to a run and when, over all of its sessions; only reports read it.

The records of a run are truncated when it resumes from a checkpoint. This file is not, so that it also tells
which work was lost and done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dqn_runner.io.entries import is_file, require_file
from dqn_runner.run.last_records import RECORDS, tail

TIMELINE = "timeline.jsonl"
START, RESUME, KILLED, SAVED, ENDED, FAILED = EVENTS = (
    "start",
    "resume",
    "killed",
    "saved",
    "ended",
    "failed",
)
"""What can happen: a session begins or continues, its process was killed, it saves, it ends, it fails."""
TAIL = 10_000
"""Bytes at the end of metrics.jsonl, which hold at least one line."""
SIGNS_OF_LIFE = (RECORDS, "logs/training.log", TIMELINE)
"""Files that a run writes to; the newest one tells until when a killed process lived."""
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Neither through a link nor into a pipe."""


@dataclass(frozen=True)
class Happening:
    """One event of a run."""

    time: float
    """Seconds since 1970."""
    event: str
    """One of EVENTS."""
    step: int | None
    """Env steps; None if the process could not tell."""
    names: tuple[str, ...] = ()
    """The names of a checkpoint that was saved."""


@dataclass(frozen=True)
class LastSession:
    """The newest session of a run, as far as its timeline tells."""

    start: int
    """Env steps at which it began."""
    step: int
    """Env steps that it has reached at least."""
    ended: bool = False
    """Whether it ended; otherwise it is running, or its process was killed."""


class Timeline:
    """Appends to the timeline of a run. A disk that is full leaves out events, and ends no run."""

    def __init__(self, run_dir: Path) -> None:
        """Nothing is written before the first event."""
        self._path = run_dir / TIMELINE
        self._signs = [run_dir / name for name in SIGNS_OF_LIFE]

    def check(self) -> None:
        """Raise UserError if there is a link, a directory or a pipe in the place of the file."""
        require_file(self._path)

    def last_sign_of_life(self) -> tuple[float, int | None] | None:
        """When the run was written last, and its env step then, as far as files tell; None without files."""
        times: list[float] = []
        for path in self._signs:
            with suppress(OSError):
                times.append(path.stat().st_mtime)
        return (max(times), _last_step(self._signs[0])) if times else None

    def add(self, event: str, step: int | None, names: Sequence[str] = (), time: float | None = None) -> None:
        """Append an event, with the present time unless given."""
        moment = datetime.now(UTC) if time is None else datetime.fromtimestamp(time, UTC)
        line: dict[str, Any] = {"time": moment.isoformat(timespec="milliseconds"), "event": event}
        line |= {} if step is None else {"step": step}
        line |= {"names": list(names)} if names else {}
        with suppress(OSError):
            descriptor = os.open(self._path, _FLAGS, 0o666)
            try:
                os.write(descriptor, (json.dumps(line) + "\n").encode())  # one call, which kill -9 cannot cut
            finally:
                os.close(descriptor)


def read_timeline(run_dir: Path) -> list[Happening]:
    """The events of a run, oldest first; lines that were damaged are left out."""
    path = run_dir / TIMELINE
    return list(_events(path.read_bytes())) if is_file(path) else []


def last_session(timeline: Sequence[Happening]) -> LastSession | None:
    """The newest session in a timeline; None if there is none."""
    session: LastSession | None = None
    for happening in timeline:
        if happening.event in (START, RESUME):
            session = LastSession(happening.step or 0, happening.step or 0)
        elif session is not None:
            ended = happening.event in (ENDED, FAILED)
            session = LastSession(session.start, happening.step or session.step, ended)
    return session


def _last_step(records: Path) -> int | None:
    """The env step of the last complete line of metrics.jsonl."""
    with suppress(ValueError, KeyError, TypeError, IndexError):
        return int(json.loads(tail(records, TAIL).split(b"\n")[-2])["step"])
    return None


def _events(content: bytes) -> Iterator[Happening]:
    for text in content.split(b"\n"):
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            line = json.loads(text)
            step, names = line.get("step"), line.get("names", [])
            if line["event"] not in EVENTS or not (step is None or isinstance(step, int)):
                continue
            time = datetime.fromisoformat(line["time"]).timestamp()
            yield Happening(time, line["event"], step, tuple(map(str, names)))
