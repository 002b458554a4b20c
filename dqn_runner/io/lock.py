"""Locks between processes, held by `flock`: the operating system releases them when a process ends."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from dqn_runner.core.exceptions import UserError

NAME = ".lock"

_BUSY = (errno.EWOULDBLOCK, errno.EACCES)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class LockUnsupportedError(OSError):
    """The file system has no locks."""


@contextmanager
def exclusive_lock(target: Path | int) -> Generator[None]:
    """Wait until no other process or thread holds the lock of `target`, and hold it within the block.

    `target` is an existing file or directory, or the descriptor of an open one. Threads exclude each other
    only if each opens the file itself. Raises LockUnsupportedError if the file system has no locks.
    """
    if isinstance(target, Path):
        descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with exclusive_lock(descriptor):
                yield
        finally:
            os.close(descriptor)
        return
    _flock(target, fcntl.LOCK_EX)
    try:
        yield
    finally:
        _flock(target, fcntl.LOCK_UN)


class RunLock:
    """The right to write a run directory, for one process at a time.

    The lock file names the process that holds the lock.
    """

    def __init__(self, directory: Path, name: str = NAME) -> None:
        """Create the lock without acquiring it; locks with different names are independent."""
        self._directory = directory
        self._name = name
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Acquire the lock, unless this object holds it already.

        Raises UserError, naming the process that holds the lock, if it is another one. Never waits.
        """
        if self._descriptor is not None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._directory / self._name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock_at_once(descriptor, fcntl.LOCK_EX, self._directory)
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on host {socket.gethostname()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock; no effect if it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def reject_if_locked(directory: Path) -> None:
    """Raise the UserError of `RunLock.acquire` if a process holds the lock of `directory`; writes nothing."""
    if not (directory / NAME).exists():
        return
    descriptor = os.open(directory / NAME, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Shared, so that two processes that check at the same time do not report each other.
        _lock_at_once(descriptor, fcntl.LOCK_SH, directory)
    finally:
        os.close(descriptor)


def _lock_at_once(descriptor: int, kind: int, directory: Path) -> None:
    try:
        _flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _BUSY:
            raise
        holder = os.read(descriptor, 1000).decode(errors="replace").strip()
        raise UserError(
            f"{directory} is being written by another run ({holder or 'unknown process'}); "
            "wait for it, stop it, or choose another output directory"
        ) from error


def _flock(descriptor: int, operation: int) -> None:
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise LockUnsupportedError(error.errno, error.strerror) from error
        raise
