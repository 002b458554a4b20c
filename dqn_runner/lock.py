"""One process writes a run directory; a lock that dies with its process says so to the others."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

from dqn_runner.types import UserError

NAME = ".lock"


class RunLock:
    """The right to write a run directory; the operating system takes it back when the process ends."""

    def __init__(self, directory: Path) -> None:
        """Not held yet."""
        self._directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise an error that names the process which has it; no effect if it is held."""
        if self._descriptor is not None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._directory / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 1000).decode(errors="replace").strip()
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise UserError(
                f"{self._directory} is being written by another run ({holder or 'it has not said which'}); "
                "wait for it, stop it, or choose another output directory"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on host {socket.gethostname()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others write."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
