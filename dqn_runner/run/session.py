"""A file that exists while a session of a run is open, so that the next one notices that it did not end."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from dqn_runner.io import files

NAME = ".session"


class Session:
    """One session in a run directory; `end` belongs into a `finally`, which kill -9 and os._exit skip."""

    def __init__(self, directory: Path) -> None:
        """Describe a session; nothing is written yet."""
        self._path = directory / NAME
        self._begun = False

    def unfinished(self) -> str | None:
        """One line if the last session in the directory did not end; call it with the lock of the run."""
        try:
            process = self._path.read_text(errors="replace").strip()[:200]
        except OSError:
            return None
        return (
            f"the last session ({process}) did not end: its process was killed, or called os._exit; "
            "this session continues from what it stored"
        )

    def begin(self) -> None:
        """Write the file; a disk that is full or read-only only prevents a later notice."""
        with suppress(OSError):
            content = f"pid {os.getpid()} on host {socket.gethostname()}\n"
            files.write_atomically(self._path, content.encode())
            self._begun = True

    def end(self) -> None:
        """Remove the file, if this object wrote it."""
        if self._begun:
            files.remove(self._path)
            self._begun = False
