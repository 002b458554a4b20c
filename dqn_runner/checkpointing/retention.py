"""Which checkpoints and replay segments are kept on disk."""

from __future__ import annotations

from pathlib import Path

from dqn_runner.checkpointing import segments
from dqn_runner.checkpointing.format import read_document, segments_in
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.state import State
from dqn_runner.io import files

NUMBERED = "checkpoint_*.pt"
"""Glob pattern of the numbered checkpoints."""


def step_of(numbered: Path) -> int:
    """Env step in the file name of a numbered checkpoint; -1 if `numbered` is not one."""
    digits = numbered.stem.removeprefix("checkpoint_")
    return int(digits) if digits.isdecimal() else -1


class Retention:
    """Deletes expired checkpoints, and replay segments that no checkpoint names."""

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

    def delete_expired(self) -> None:
        """Delete numbered checkpoints beyond the newest `keep_last`, then unreferenced segments."""
        numbered = sorted(self._directory.glob(NUMBERED), key=step_of)
        if expired := numbered[: max(0, len(numbered) - self._keep_last)]:
            for path in expired:
                files.remove(path)
            files.sync_directory(self._directory)  # before the segments that they name are removed
        if not self._segments.is_dir():
            return
        present = {_identity(path): path for path in self._directory.glob("*.pt")}
        for identity in present.keys() - self._references.keys():
            self._references[identity] = self._read_references(present[identity])
        self._references = {identity: self._references[identity] for identity in present}
        segments.remove_unreferenced(self._segments, set[str]().union(*self._references.values()))

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
