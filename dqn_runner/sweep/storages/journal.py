"""The journal file of a study, which stays readable when a process is killed while writing to it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages.journal import JournalFileBackend

from dqn_runner.core.exceptions import NoRoomError, UserError
from dqn_runner.io.files import sync_directory
from dqn_runner.io.lock import LockUnsupportedError, exclusive_lock

_BLOCK = 1 << 16


class Journal(JournalFileBackend):
    """Optuna's journal with a lock that the system releases, and without incomplete lines.

    Optuna locks with a symbolic link. A killed process leaves the link behind, and the others wait 30 seconds
    for it. The part of a line that the process has written is joined with the next line, and the file cannot
    be read any more. Here the writer locks the journal itself with `flock`, which the system releases when
    the process ends. Before it appends, it removes an incomplete last line, which no caller has been told is
    stored. Readers need no lock: Optuna ignores a last line without an end.

    On NFS, Linux maps `flock` to a lock of the server, which all machines see, and reads the size of the file
    again when it gets the lock. A machine that is switched off loses the lock with its lease, after about a
    minute and a half. A file system without locks is rejected.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal, or create it; raises OSError if it cannot be opened or written."""
        new = not path.exists()
        super().__init__(str(path))
        path.open("r+b").close()  # raises now if it cannot be written
        if new:
            sync_directory(path.parent)
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append a line for each record; they are on the disk when this returns."""
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        try:
            with self._path.open("r+b", buffering=0) as file, exclusive_lock(file.fileno()):
                self._append(file, "".join(lines).encode())
        except LockUnsupportedError as error:
            raise UserError(
                f"the file system of {self._path} has no locks ({error.strerror}); put the journal of the "
                "sweep on another one, or use a database: hydra.sweeper.storage=postgresql://…"
            ) from error

    def _append(self, file: BinaryIO, text: bytes) -> None:
        end = _end_of_last_line(file)
        file.truncate(end)
        file.seek(end)
        remaining = memoryview(text)
        try:
            while remaining:
                remaining = remaining[file.write(remaining) :]
            os.fsync(file.fileno())
        except OSError as error:
            raise NoRoomError(
                f"the journal {self._path} cannot be written ({error.strerror}); free disk space, and "
                "repeat the command to continue"
            ) from error


def _end_of_last_line(file: BinaryIO) -> int:
    """The size of the file without an incomplete last line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - _BLOCK)
        file.seek(begin)
        if newline := file.read(end - begin).rfind(b"\n") + 1:
            return begin + newline
        end = begin
    return 0
