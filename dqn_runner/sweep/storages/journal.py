"""The journal file of a study: lines that are whole, whoever is killed while writing one."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages.journal import JournalFileBackend

from dqn_runner.core.exceptions import NoRoomError, UserError
from dqn_runner.io.files import sync_directory

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_TAIL = 1 << 16


class Journal(JournalFileBackend):
    """Optuna's journal with a lock that dies with its holder, and without torn lines.

    Optuna locks by a symbolic link. A process that is killed leaves the link behind, and the others wait 30
    seconds for it; and what it had written of its line becomes one line with the next, after which nobody
    can read the file. Here the writer locks the journal itself by `flock`, which the system takes back when
    a process ends in whatever way, and first cuts off what follows the last newline: nobody was told that
    it is stored. Readers need no lock; Optuna's pass over a line that has no end yet.

    On NFS, Linux turns `flock` into a lock that the server keeps, for all machines, and reads the file's
    size anew when it gets one; a machine that is switched off loses it with its lease, after a minute and
    a half. A file system without locks is refused.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal, or begin it; raises OSError where that cannot be."""
        new = not path.exists()
        super().__init__(str(path))
        path.open("r+b").close()  # only to say now that it cannot be written
        if new:
            sync_directory(path.parent)
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append a line for each record; they are on the disk when this returns."""
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        with self._path.open("r+b", buffering=0) as file:
            _lock(file, self._path)
            end = _end_of_last_line(file)
            file.truncate(end)
            file.seek(end)
            remaining = memoryview("".join(lines).encode())
            try:
                while remaining:
                    remaining = remaining[file.write(remaining) :]
                os.fsync(file.fileno())
            except OSError as error:
                raise NoRoomError(
                    f"the journal {self._path} takes no more ({error.strerror}); make room, and the same "
                    "command goes on"
                ) from error


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise UserError(
            f"the file system of {path} has no locks ({error.strerror}); give the sweep a journal on another "
            "one, or a database: hydra.sweeper.storage=postgresql://…"
        ) from error


def _end_of_last_line(file: BinaryIO) -> int:
    """How many bytes of the file are whole lines."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - _TAIL)
        file.seek(begin)
        if newline := file.read(end - begin).rfind(b"\n") + 1:
            return begin + newline
        end = begin
    return 0
