"""A directory that is recognised after it was renamed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


class HeldDirectory:
    """An open directory, which is not confused with another one that later has its name.

    Windows cannot open directories, and renames none that contains open files: nothing is checked there.
    """

    def __init__(self, path: Path) -> None:
        """Hold the existing directory `path`."""
        self._path = path
        can_open = os.name != "nt"
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(path, flags) if can_open else None

    def location(self) -> Path | None:
        """Where the directory is now: its path, a new one if it was renamed, or None if it was removed.

        A new path can be found on Linux only; elsewhere it is None too.
        """
        if self._descriptor is None:
            return self._path
        try:
            if self._is_at(self._path):
                return self._path
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:
            return self._path  # a disk that does not answer; to write there gives an error that says so
        with suppress(OSError):
            renamed = Path(f"/proc/self/fd/{self._descriptor}").readlink()
            if self._is_at(renamed):
                return renamed
        return None

    def close(self) -> None:
        """Close the directory."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_at(self, path: Path) -> bool:
        assert self._descriptor is not None
        return os.path.samestat(os.fstat(self._descriptor), path.stat())
