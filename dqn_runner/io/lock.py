"""Locks between processes: the operating system releases them when a process ends, however it ends."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from dqn_runner.core.exceptions import NoRoomError, UserError
from dqn_runner.io.entries import require_file

NAME = ".lock"

_POLL_SECONDS = 0.005
_TRIES = 20
"""So many polls are longer than another process holds the lock to see whether it is free."""
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class LockUnsupportedError(OSError):
    """The file system has no locks."""


class LockHeldError(UserError):
    """Another process holds the lock."""


@contextmanager
def exclusive_lock(target: Path | int) -> Generator[None]:
    """Wait until no other process or thread holds the lock of `target`, and hold it within the block.

    `target` is a file, which is created if it does not exist, or the descriptor of an open one. Threads
    exclude each other only if each opens the file itself. Raises LockUnsupportedError if the file system has
    no locks, and UserError if the file is a link.
    """
    if isinstance(target, Path):
        require_file(target)
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | _CLOEXEC, 0o666)
        try:
            with exclusive_lock(descriptor):
                yield
        finally:
            os.close(descriptor)
        return
    _lock(target, blocking=True)
    try:
        yield
    finally:
        _unlock(target)


class RunLock:
    """The right to write a run directory, for one process at a time.

    The lock file names the process that holds the lock.
    """

    def __init__(self, directory: Path, name: str = NAME) -> None:
        """Create the lock without acquiring it; locks with different names are independent."""
        self._directory = directory
        self._path = directory / name
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Acquire the lock, unless this object holds it already.

        Raises LockHeldError, which names the process, if another one holds the lock, UserError if the lock
        file is a link or the file system has no locks, and NoRoomError if it cannot be written. Waits for a
        fraction of a second only.
        """
        if self._descriptor is not None:
            return
        descriptor = self._open()
        try:
            _lock_at_once(descriptor, self._directory)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        with suppress(OSError):  # a full disk: the text is only for the messages of other processes
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"pid {os.getpid()} on host {socket.gethostname()}\n".encode())

    def _open(self) -> int:
        """Open the lock file, which is created with its directory if it does not exist."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            require_file(self._path)
            return os.open(self._path, os.O_RDWR | os.O_CREAT | _CLOEXEC, 0o666)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            raise NoRoomError(
                f"{self._directory} is on a read-only disk; repeat the command when it can be written, or "
                "choose another directory"
            ) from error

    def release(self) -> None:
        """Release the lock; no effect if it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def reject_if_locked(directory: Path) -> None:
    """Raise the errors of `RunLock.acquire` if a process holds the lock of `directory`; writes nothing."""
    path = directory / NAME
    if not os.path.lexists(path):
        return
    require_file(path)
    try:
        descriptor = os.open(path, os.O_RDWR | _CLOEXEC)  # NFS locks only what is open for writing
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        descriptor = os.open(path, os.O_RDONLY | _CLOEXEC)
    try:
        _lock_at_once(descriptor, directory)
    finally:
        os.close(descriptor)


def _lock_at_once(descriptor: int, directory: Path) -> None:
    """Lock, or raise LockHeldError if another process holds the lock for longer than a check takes."""
    try:
        for _ in range(_TRIES):
            if _lock(descriptor, blocking=False):
                return
            time.sleep(_POLL_SECONDS)
    except LockUnsupportedError as error:
        raise UserError(
            f"the file system of {directory} has no locks ({error.strerror}), without which two processes "
            "could write the same run; choose a directory on another one"
        ) from error
    holder = "unknown process"
    with suppress(OSError):  # Windows does not let others read a locked file
        holder = os.read(descriptor, 1000).decode(errors="replace").strip() or holder
    raise LockHeldError(
        f"{directory} is being written by another run ({' '.join(holder.split())}); "
        "wait for it, stop it, or choose another output directory"
    )


def _lock(descriptor: int, blocking: bool) -> bool:
    """Lock an open file; returns whether that succeeded, which it always does after waiting (`blocking`)."""
    from filelock import lock_descriptor  # late: `--help` locks nothing

    try:
        return lock_descriptor(descriptor, blocking=blocking, poll_interval=_POLL_SECONDS)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise LockUnsupportedError(error.errno, error.strerror) from error
        raise


def _unlock(descriptor: int) -> None:
    from filelock import unlock_descriptor

    unlock_descriptor(descriptor)
