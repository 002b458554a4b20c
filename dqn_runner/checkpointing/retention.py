"""Which checkpoints and segments are kept on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dqn_runner.checkpointing import segments
from dqn_runner.checkpointing.format import read_document, segments_in
from dqn_runner.checkpointing.names import NUMBERED
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.state import State
from dqn_runner.io import files
from dqn_runner.io.entries import is_file


def checkpoints_in(directory: Path) -> Iterator[Path]:
    """The checkpoint files in a directory under any name; entries of other kinds are left out."""
    return (path for path in directory.glob("*.pt") if is_file(path))


def numbered_in(directory: Path) -> dict[Path, int]:
    """The numbered checkpoint files in a directory, with the env steps in their names; in any order."""
    found = ((path, NUMBERED.fullmatch(path.name)) for path in checkpoints_in(directory))
    return {path: int(match[1]) for path, match in found if match}


class Retention:
    """Deletes expired checkpoints, and segments that no checkpoint names."""

    def __init__(self, directory: Path, keep_last: int) -> None:
        """Keep the newest `keep_last` numbered checkpoints in `directory`; all other checkpoints are kept."""
        self._directory = directory
        self._segments = directory / segments.FOLDER
        self._keep_last = keep_last
        self._references: dict[tuple[int, int], set[str]] = {}
        """Names of the segments that a checkpoint file names, by the identity of the file."""

    def record(self, path: Path, document: State) -> None:
        """Record which segments the new checkpoint `path` names, so that its file need not be read."""
        self._references[_identity(path)] = _segment_names(document)

    def delete_expired(self, unwritten: State | None = None) -> None:
        """Delete numbered checkpoints beyond the newest `keep_last`, then unreferenced segments.

        `unwritten` is a checkpoint that is yet to be written, and names segments that are.
        """
        steps = numbered_in(self._directory)
        numbered = sorted(steps, key=lambda path: steps[path])
        if expired := numbered[: max(0, len(numbered) - self._keep_last)]:
            for path in expired:
                files.remove(path)
            files.sync_directory(self._directory)  # before the segments that they name are removed
        if not self._segments.is_dir():
            return
        present = {_identity(path): path for path in checkpoints_in(self._directory)}
        for identity in present.keys() - self._references.keys():
            self._references[identity] = self._read_references(present[identity])
        self._references = {identity: self._references[identity] for identity in present}
        named = set[str]() if unwritten is None else _segment_names(unwritten)
        segments.remove_unreferenced(self._segments, named.union(*self._references.values()))

    def _read_references(self, path: Path) -> set[str]:
        """Names of the segments of a checkpoint; all present ones if it cannot be read and may need any."""
        try:
            return _segment_names(read_document(path))
        except UserError:
            return {segment.name for segment in self._segments.iterdir()}


def _identity(path: Path) -> tuple[int, int]:
    """Identity of a checkpoint file, equal for all links to it; a file never changes once it is written."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns


def _segment_names(document: State) -> set[str]:
    return {segment.name for found in segments_in(document).values() for segment in found}
