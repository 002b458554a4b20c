"""A list of all runs and sweeps below a directory, read quickly: a few bytes of each run."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from dqn_runner.io import json_io
from dqn_runner.io.entries import is_file
from dqn_runner.report.found_runs import run_directories, sweep_directories
from dqn_runner.report.history import is_current, session_by_files
from dqn_runner.report.stored_run import state_of, texts
from dqn_runner.run.last_records import RECORDS, read_last_records
from dqn_runner.run.provenance import RUN, env_of
from dqn_runner.run.timeline import TIMELINE, last_session, read_timeline
from dqn_runner.sweep.names import JOURNAL, RESULTS

HEAD = 2_000
"""Bytes at the start of metrics.json that are read."""

_FINISHED = re.compile(rb'^ "finished": (".*"),?\r?$', re.MULTILINE)
_STEPS = re.compile(rb'^ "env_steps": (\d+),?\r?$', re.MULTILINE)
_BEST, _LAST = (
    re.compile(rb'"%s": \{\s*"return_mean": (-?[\d.eE+-]+)' % name) for name in (b"best", b"last")
)


@dataclass(frozen=True)
class Entry:
    """A run in the list."""

    path: str
    """Relative to the directory that is listed; `.` for the directory itself."""
    state: str
    env: str
    step: int
    score: float | None
    """Mean return of the last evaluation."""
    best: float | None
    """Mean return of the best evaluation, once the run has written metrics.json."""
    eta: float | None
    """Seconds left, as the last log line estimated them."""
    changed: float
    """When the run was written last, in seconds since 1970."""
    overrides: str


class Listing:
    """Lists runs; what it has read of a run is kept until one of its files changes."""

    def __init__(self, root: Path) -> None:
        """`root` is the directory whose runs are listed."""
        self._root = root
        self._known: dict[Path, tuple[Any, Entry]] = {}

    def entries(self) -> list[Entry]:
        """All runs, the latest first."""
        found = [self._entry(directory) for directory in run_directories(self._root)]
        return sorted(found, key=lambda entry: -entry.changed)

    def sweeps(self) -> list[str]:
        """The directories of sweeps, relative to the root."""
        return [self._relative(directory) for directory in sweep_directories(self._root)]

    def _entry(self, directory: Path) -> Entry:
        stamp = tuple(_stamp(directory / name) for name in (RECORDS, json_io.METRICS, TIMELINE, RUN))
        known = self._known.get(directory)
        if known is not None and known[0] == stamp and known[1].state != "running":
            return known[1]
        entry = _read(directory, self._relative(directory), max(time for time, _ in stamp))
        self._known[directory] = (stamp, entry)
        return entry

    def _relative(self, directory: Path) -> str:
        return directory.relative_to(self._root).as_posix()


def _read(directory: Path, path: str, changed: float) -> Entry:
    head = _head(directory / json_io.METRICS, HEAD)
    finished, best, newest, steps = (regex.search(head) for regex in (_FINISHED, _BEST, _LAST, _STEPS))
    last, timeline = read_last_records(directory), read_timeline(directory)
    env, overrides = _provenance(directory)
    end = int(steps[1]) if steps else -1
    session = last_session(timeline) or session_by_files(last.step, end)
    current = is_current(end, session)  # or metrics.json is that of an earlier session
    reason = finished[1].decode(errors="replace").strip('"') if finished and current else None
    reported = _number(newest[1]) if newest and (current or last.score is None) else None
    return Entry(
        path=path,
        state=state_of(directory, timeline, reason),
        env=env,
        step=end if current else max(last.step, session.step),
        score=last.score if reported is None else reported,
        best=_number(best[1]) if best else None,
        eta=last.eta,
        changed=changed,
        overrides=overrides,
    )


def _provenance(directory: Path) -> tuple[str, str]:
    """The environment and the overrides of a run."""
    if not is_file(directory / RUN):
        return "", ""
    with suppress(msgspec.DecodeError, KeyError, TypeError, IndexError, AttributeError, OSError):
        document = msgspec.json.decode((directory / RUN).read_bytes())
        overrides = " ".join(texts(document["sessions"][-1].get("overrides")))
        return env_of(document["config"]) or "", overrides
    return "", ""


def _head(path: Path, size: int) -> bytes:
    """The first bytes of a file; none if it is not a file."""
    with suppress(OSError):  # it cannot be read
        if is_file(path):
            with path.open("rb") as file:
                return file.read(size)
    return b""


def _number(text: bytes) -> float | None:
    """A number that the end of the part may have cut."""
    with suppress(ValueError):
        return float(text)
    return None


def _stamp(path: Path) -> tuple[float, int]:
    """Time and size of a file; they tell whether it has changed."""
    with suppress(OSError):
        status = path.stat()
        return status.st_mtime, status.st_size
    return 0.0, 0


def newest_change(directory: Path) -> object:
    """What changes whenever a page about the run or sweep in `directory` would, also if its process dies."""
    names = (RECORDS, json_io.METRICS, TIMELINE, RUN, "eval.json", "eval.gif", "eval.mp4", "videos")
    stamps = [_stamp(directory / name) for name in (*names, "logs/training.log", ".lock", JOURNAL, RESULTS)]
    return state_of(directory, (), None), stamps
