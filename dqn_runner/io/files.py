"""Durable file operations.

Every function may be interrupted by a crash between any two calls of `os`: a file has its old content or its
new one. All access to the disk is through `os`, which tests replace to simulate crashes.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from dqn_runner.io.entries import make_way

TEMPORARY = ".tmp"
"""Suffix of files that are being written."""

_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)  # only one of them exists

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors that mean: free disk space, or raise the limit, and repeat the command."""


def no_room_error(error: BaseException) -> OSError | None:
    """The error of a full disk that `error` is or that caused it, if there is one."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in NO_ROOM:
            return link
        link = link.__cause__ or link.__context__
    return None


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of `path`; when this returns, the new content is on the disk.

    After a crash or an error, `path` has either the old content or the new one. A link is replaced and not
    followed; a directory of that name is renamed.
    """
    make_way(path)
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        _write(temporary, content)
        os.replace(temporary, path)  # noqa: PTH105, this file accesses the disk through `os` only
    except BaseException:
        remove(temporary)
        raise
    sync_directory(path.parent)


def publish(source: Path, path: Path) -> None:
    """Make `source` available as `path` too: by a hard link, or by a copy if the file system has no links."""
    make_way(path)
    if path.exists() and path.samefile(source):
        return  # a rename between two links to the same file would leave both
    temporary = path.with_name(path.name + TEMPORARY)
    _remove_leftover(temporary)
    try:
        os.link(source, temporary)
    except OSError:
        write_atomically(path, source.read_bytes())
        return
    os.replace(temporary, path)  # noqa: PTH105
    sync_directory(path.parent)


def make_directory(directory: Path) -> None:
    """Create `directory` and its missing parents, and make their names durable."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)


def write_part(descriptor: int, content: bytes | memoryview) -> int:
    """Write the start of `content` to an open file; returns the number of bytes that the disk accepted."""
    return os.write(descriptor, content)


def sync(descriptor: int) -> None:
    """Make the content of an open file durable."""
    os.fsync(descriptor)


def sync_directory(directory: Path) -> None:
    """Make the file names in `directory` durable; Windows has no such operation."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def rename(path: Path, name: str) -> None:
    """Rename `path` to `name` within its directory, replacing a file of that name."""
    make_way(path.with_name(name))
    os.replace(path, path.with_name(name))  # noqa: PTH105
    sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove the file `path`, if it exists and can be removed."""
    with suppress(OSError):
        os.unlink(path)  # noqa: PTH108


def remove_leftovers(directory: Path) -> None:
    """Remove files in `directory` that a killed process did not finish writing."""
    for path in directory.glob(f"*{TEMPORARY}"):
        remove(path)


def _write(path: Path, content: bytes) -> None:
    """Write a new file. One left there by a crash is removed first: it may be a link to a checkpoint."""
    _remove_leftover(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666)
    try:
        remaining = memoryview(content)
        while remaining:
            remaining = remaining[write_part(descriptor, remaining) :]
        sync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftover(path: Path) -> None:
    """Make the name of a temporary file free."""
    remove(path)
    make_way(path)
