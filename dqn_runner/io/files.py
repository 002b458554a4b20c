"""Durable file operations. Each touches the disk through one call of `os`, between which a crash is safe."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

TEMPORARY = ".tmp"


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
