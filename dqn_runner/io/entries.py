"""Entries of a directory that are not what they should be: links, directories or pipes instead of files."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.log import log

_ADVICE = (
    "files of a run are not written through links; remove the link (the whole run directory may be a link)"
)


def is_file(path: Path) -> bool:
    """Whether `path` is a file, or a link to one; opening anything else could fail or wait forever."""
    return problem_with_file(path) is None


def problem_with_file(path: Path) -> str | None:
    """Why `path` cannot be read as a file, as in `is a directory`; None if it is a file or a link to one."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if path.is_symlink():
            missing = error.errno == errno.ENOENT
            return (
                f"is a symbolic link to {path.readlink()}, which {'does not exist' if missing else 'is none'}"
            )
        return "does not exist" if error.errno == errno.ENOENT else f"cannot be read ({error.strerror})"
    except ValueError:
        return "is not a path"
    return None if stat.S_ISREG(mode) else _kind(mode)


def require_file(path: Path) -> None:
    """Raise UserError if a write to `path` would fail, wait, or change a file elsewhere."""
    _require(path, stat.S_ISREG, "writes a file")


def require_directory(path: Path) -> None:
    """Raise UserError if `path` is not a directory, or is a link to one: its files would be elsewhere."""
    _require(path, stat.S_ISDIR, "has a directory")


def make_way(path: Path) -> None:
    """Rename a directory in the place of the file `path`, which no rename could replace; nothing is lost."""
    mode = _mode(path)
    if mode is None or not stat.S_ISDIR(mode):
        return
    new, number = path.with_name(f"damaged_{path.name}"), 1
    while os.path.lexists(new):
        number += 1
        new = path.with_name(f"damaged_{number}_{path.name}")
    path.rename(new)
    log.warning("%s is a directory, where a file belongs; it is kept as %s", path, new.name)


def _require(path: Path, is_right: Callable[[int], bool], purpose: str) -> None:
    """Raise UserError if there is an entry `path` of another kind; `purpose` is what the run does there."""
    mode = _mode(path)
    if mode is None or is_right(mode):
        return
    if stat.S_ISLNK(mode):
        raise UserError(f"{path} is a symbolic link to {path.readlink()}; {_ADVICE}")
    raise UserError(f"{path} {_kind(mode)}, where this run {purpose}; move it away")


def _mode(path: Path) -> int | None:
    """The kind of the entry itself, not of what a link points to; None if there is none."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "is a directory"
    return "is a file" if stat.S_ISREG(mode) else "is a pipe, socket or device"
