"""Durable file operations. Each touches the disk through one call of `os`, between which a crash is safe."""

from __future__ import annotations

import os
from pathlib import Path

from dqn_runner.core.log import log
from dqn_runner.core.state import State


class AppendedFile:
    """A file that only grows. What a full disk did not take waits in memory and is written when it can be."""

    def __init__(self, path: Path, state: State | None) -> None:
        """New without a state, else cut back to where the state says."""
        self.is_new = state is None or not path.exists()
        self._file = path.open("wb" if self.is_new else "r+b", buffering=0)
        self._waiting = b""
        if state is not None and not self.is_new:
            missing = state["offset"] - self._file.seek(0, os.SEEK_END)
            if missing > 0:
                log.warning("%s lacks its last %d bytes; something else has cut it short", path, missing)
            else:
                self._file.truncate(state["offset"])
            self._waiting = state["waiting"].encode()
        self._offset = self._file.seek(0, os.SEEK_END)

    def write(self, text: str) -> None:
        """Append `text`, after what still waits; raises OSError if the disk does not take it now."""
        self._waiting += text.encode()
        while self._waiting:
            written = os.write(self._file.fileno(), self._waiting)
            self._offset += written
            self._waiting = self._waiting[written:]

    def sync(self) -> None:
        """Make durable what was written."""
        os.fsync(self._file.fileno())

    def state_dict(self) -> State:
        """Where the file stands, and what it still has to take."""
        return {"offset": self._offset, "waiting": self._waiting.decode()}

    def close(self) -> None:
        """Write what still waits, if the disk takes it now, and let go."""
        try:
            self.write("")
        finally:
            self._file.close()
