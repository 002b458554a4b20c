"""The sessions of a run: a file that exists while one is open, and their events in the timeline of the run.

A session that finds the file of an earlier one notices that it did not end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dqn_runner.io import files
from dqn_runner.run.timeline import ENDED, FAILED, KILLED, RESUME, SAVED, START, Timeline

NAME = ".session"
STARTING = ".starting"
LOST_START = (
    "the last start in this directory ended without a word while it made the environment or reset it for the "
    "first time: its process was killed, or code of the environment called os._exit"
)


@contextmanager
def noticed_if_lost(directory: Path) -> Generator[str | None]:
    """Within the block, a start of a run is noticed by the next one if its process vanishes.

    Code of the user that calls os._exit leaves no message, whatever the program does. The value is one line
    about the start before, if it vanished. A missing directory, or a full disk, only prevents the notice.
    """
    path = directory / STARTING
    lost = os.path.lexists(path)
    with suppress(OSError):
        path.touch(exist_ok=False)  # which follows no link
    try:
        yield LOST_START if lost else None
    finally:
        files.remove(path)


class Session:
    """One session in a run directory; `end` belongs into a `finally`, which kill -9 and os._exit skip."""

    def __init__(self, directory: Path) -> None:
        """Describe a session; nothing is written yet."""
        self._path = directory / NAME
        self._timeline = Timeline(directory)
        self._killed: tuple[float, int | None] | None = None
        self._begun = False

    def unfinished(self) -> str | None:
        """One line if the last session in the directory did not end; call it with the lock of the run."""
        try:
            process = self._path.read_text(errors="replace").strip()[:200]
        except OSError:
            return None
        self._killed = self._timeline.last_sign_of_life()
        return (
            f"the last session ({process}) did not end: its process was killed, or called os._exit; "
            "this session continues from what it stored"
        )

    def begin(self, step: int, resumed: bool) -> None:
        """Write the file; a disk that is full or read-only only prevents a later notice."""
        self._timeline.check()
        if self._killed is not None:
            time, last_step = self._killed
            self._timeline.add(KILLED, last_step, time=time)
            self._killed = None
        self._timeline.add(RESUME if resumed else START, step)
        with suppress(OSError):
            content = f"pid {os.getpid()} on host {socket.gethostname()}\n"
            files.write_atomically(self._path, content.encode())
            self._begun = True

    def saved(self, step: int, names: Sequence[str]) -> None:
        """Note that a checkpoint is being written."""
        self._timeline.add(SAVED, step, names)

    def end(self, failed: bool = False) -> None:
        """Remove the file, if this object wrote it; `failed` means that an exception ended the session."""
        if self._begun:
            files.remove(self._path)
            self._begun = False
            self._timeline.add(FAILED if failed else ENDED, None)
