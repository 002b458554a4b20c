"""One process writes a run directory; a lock that dies with its process says so to the others."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

from dqn_runner.core.exceptions import UserError

NAME = ".lock"


class RunLock:
    """The right to write a run directory; the operating system takes it back when the process ends."""

    def __init__(self, directory: Path, name: str = NAME) -> None:
        """Not held yet; locks of different names have nothing to do with each other."""
        self._directory = directory
        self._name = name
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise an error that names the process which has it; no effect if it is held."""
        if self._descriptor is not None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._directory / self._name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(descriptor, fcntl.LOCK_EX, self._directory)
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on host {socket.gethostname()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others write."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def reject_if_locked(directory: Path) -> None:
    """Raise the same error where a process has the lock now; writes nothing."""
    if not (directory / NAME).exists():
        return
    descriptor = os.open(directory / NAME, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock(descriptor, fcntl.LOCK_SH, directory)  # shared, so that two who ask do not see each other
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        holder = os.read(descriptor, 1000).decode(errors="replace").strip()
        raise UserError(
            f"{directory} is being written by another run ({holder or 'it has not said which'}); "
            "wait for it, stop it, or choose another output directory"
        ) from error
