"""Which checkpoints and replay segments stay on disk."""

from __future__ import annotations

from pathlib import Path

from dqn_runner.checkpointing import segments
from dqn_runner.checkpointing.format import read_document, stored_segments
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.state import State
from dqn_runner.io import files

NUMBERED = "checkpoint_*.pt"


def step_of(numbered: Path) -> int:
    """The env step in the name of a numbered checkpoint; -1 if it is none."""
    digits = numbered.stem.removeprefix("checkpoint_")
    return int(digits) if digits.isdecimal() else -1


class Retention:
    """Removes numbered checkpoints beyond the newest, and segments that no checkpoint names any more."""

    def __init__(self, directory: Path, keep_last: int) -> None:
        """Of the numbered checkpoints in `directory` the newest `keep_last` stay."""
        self._directory = directory
        self._segments = directory / segments.FOLDER
        self._keep_last = keep_last
        self._named: dict[tuple[int, int], set[str]] = {}
        """The segments that a file names, whatever names the file has or gets."""

    def note(self, path: Path, document: State) -> None:
        """Know that `path` was written, and holds `document`."""
        self._named[_identity(path)] = _segment_names(document)

    def apply(self) -> None:
        """Remove what need not stay."""
        numbered = sorted(self._directory.glob(NUMBERED), key=step_of)
        if old := numbered[: max(0, len(numbered) - self._keep_last)]:
            for path in old:
                files.remove(path)
            files.sync_directory(self._directory)  # before the segments go that they name
        if not self._segments.is_dir():
            return
        present = {_identity(path): path for path in self._directory.glob("*.pt")}
        for identity in present.keys() - self._named.keys():
            self._named[identity] = self._names_in(present[identity])
        self._named = {identity: self._named[identity] for identity in present}
        segments.remove_others(self._segments, set[str]().union(*self._named.values()))

    def _names_in(self, path: Path) -> set[str]:
        """The segments that a checkpoint names; one that cannot be read may need any that is there now."""
        try:
            return _segment_names(read_document(path))
        except UserError:
            return {segment.name for segment in self._segments.iterdir()}


def _identity(path: Path) -> tuple[int, int]:
    """Equal for the names of one file, which does not change once it is written."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns


def _segment_names(document: State) -> set[str]:
    return {piece.name for pieces in stored_segments(document).values() for piece in pieces}
