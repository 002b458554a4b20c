"""A file to which loggers append lines, with a state that says how much of it a checkpoint covers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypedDict

from dqn_runner.core.log import log
from dqn_runner.core.state import State
from dqn_runner.io import files
from dqn_runner.io.entries import require_file


class FileState(TypedDict):
    """The state of an AppendedFile."""

    offset: int
    unwritten: str


class AppendedFile:
    """A file that only grows. Text that a full disk rejects is kept in memory and written later."""

    def __init__(self, path: Path, state: State | None) -> None:
        """Create the file, or truncate it to its length in `state` if there is one.

        Raises UserError if `path` is a link, a directory or a pipe.
        """
        require_file(path)
        self._path, self._is_removed = path, False
        self.is_new = state is None or not path.exists()
        self._file = path.open("wb" if self.is_new else "r+b", buffering=0)
        self._unwritten = b""
        if state is not None and not self.is_new:
            missing = state["offset"] - self._file.seek(0, os.SEEK_END)
            if missing > 0:
                log.warning("%s lacks its last %d bytes; another program has truncated it", path, missing)
            else:
                self._file.truncate(state["offset"])
            self._unwritten = state["unwritten"].encode()
        self._offset = self._file.seek(0, os.SEEK_END)

    def write(self, text: str) -> None:
        """Append `text`, after any text kept in memory; raises OSError if the disk rejects it."""
        self._unwritten += text.encode()
        while self._unwritten:
            written = files.write_part(self._file.fileno(), self._unwritten)
            self._offset += written
            self._unwritten = self._unwritten[written:]

    def sync(self) -> None:
        """Make durable what was written; logs once if the file was removed."""
        files.sync(self._file.fileno())
        if not self._is_removed and os.fstat(self._file.fileno()).st_nlink == 0:
            self._is_removed = True
            log.warning("%s was removed by another program; what is written to it is lost", self._path)

    def state_dict(self) -> State:
        """Return the length of the file and the text that is not written yet."""
        return {"offset": self._offset, "unwritten": self._unwritten.decode()}

    def close(self) -> None:
        """Write any text kept in memory, and close the file; raises OSError if the disk rejects it."""
        try:
            self.write("")
        finally:
            self._file.close()
