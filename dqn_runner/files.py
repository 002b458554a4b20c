"""Durable file operations. Each touches the disk through one call of `os`, between which a crash is safe."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from dqn_runner.types import State

TEMPORARY = ".tmp"

log = logging.getLogger("dqn_runner")


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`; a crash leaves the old or the new, a return means it is on disk."""
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        _write(temporary, content)
        os.replace(temporary, path)  # noqa: PTH105, all of this file goes through `os`
    except BaseException:
        remove(temporary)
        raise
    sync_directory(path.parent)


def publish(source: Path, path: Path) -> None:
    """Give `source` the second name `path`: by a hard link where the file system has them, else a copy."""
    if path.exists() and path.samefile(source):
        return  # renaming one name of a file to another would leave both
    temporary = path.with_name(path.name + TEMPORARY)
    remove(temporary)
    try:
        os.link(source, temporary)
    except OSError:
        write_atomically(path, source.read_bytes())
        return
    os.replace(temporary, path)  # noqa: PTH105
    sync_directory(path.parent)


def make_directory(directory: Path) -> None:
    """Make `directory` and those above it where they are missing, and their names durable."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(path: Path, name: str) -> None:
    """Give `path` another name in its directory, replacing what has that name."""
    os.replace(path, path.with_name(name))  # noqa: PTH105
    sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove `path` if it is there and can be removed."""
    with suppress(OSError):
        os.unlink(path)  # noqa: PTH108


def remove_leftovers(directory: Path) -> None:
    """Remove what a killed process left half-written."""
    for path in directory.glob(f"*{TEMPORARY}"):
        remove(path)


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


def _write(path: Path, content: bytes) -> None:
    """Write a file that is new: what a crash left there may be a second name of one that must stay."""
    remove(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
