"""Writes the checkpoints of a run in the background, and restores their files when the run resumes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dqn_runner.checkpointing import segments
from dqn_runner.checkpointing.format import SNAPSHOT, encode, pack, read_document, segments_in
from dqn_runner.checkpointing.names import BEST, LATEST, best_name, numbered_name
from dqn_runner.checkpointing.retention import Retention, numbered_in
from dqn_runner.checkpointing.segments import Segment
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.log import log
from dqn_runner.core.state import RowSnapshot, State
from dqn_runner.core.types import Array
from dqn_runner.io import files
from dqn_runner.io.entries import is_file


@dataclass
class _NewSegment:
    """Rows that are not on disk yet."""

    entry: list[Any]
    """[start, stop, name] in the document of the checkpoint; the name is empty until the file is written."""
    path: str
    """Path of the snapshot in the document."""
    columns: dict[str, Array]


@dataclass
class _PendingCheckpoint:
    """A consistent copy of a state that is to be written."""

    document: State
    names: list[str]
    """The file is written under the first name and then published under the others."""
    previous_best: str | None
    """Name under which the best.pt that this checkpoint replaces is kept; None if it is not."""
    new_segments: list[_NewSegment] = field(default_factory=list[_NewSegment])


class Checkpointer:
    """Writes the checkpoints of a run into a directory, one at a time, in a background thread."""

    def __init__(self, directory: Path, keep_last: int, sync: Callable[[], None] = lambda: None) -> None:
        """Create a checkpointer; nothing is written before the first `save`.

        Args:
            directory: Directory of the checkpoints; created when the first one is written.
            keep_last: How many of the numbered checkpoints to keep; best.pt and latest.pt are always kept.
            sync: Called before a checkpoint is published, to make other files that it refers to durable.
        """
        self.directory = directory
        self.failed = False
        """Whether the last attempt to write a checkpoint failed."""
        self._segments = directory / segments.FOLDER
        self._keep_last = keep_last
        self._retention = Retention(directory, keep_last)
        self._sync = sync
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._in_progress: tuple[Future[None], _PendingCheckpoint] | None = None
        self._unwritten_best: _PendingCheckpoint | None = None
        """The best checkpoint, if writing it failed."""
        self._written_segments: dict[str, dict[int, Segment]] = {}
        """Segments on disk, by the path of their snapshot and by their `stop`."""

    def save(self, payload: State, step: int, names: Iterable[str], previous_best: str | None = None) -> None:
        """Copy `payload` and start writing it as latest.pt and under each of `names`.

        Waits until the previous checkpoint is written. If writing fails, the error is logged, not raised, and
        the next `save` tries again. If `previous_best` is given, the best.pt that this checkpoint replaces is
        kept under that name. Raises UserError if a part of the user's own has a state that cannot be stored.
        """
        self.wait()
        others = [name for name in names if name != LATEST]
        checkpoint = _PendingCheckpoint({}, [LATEST, *others], previous_best)
        content = {"step": step, "names": others, **payload}
        try:
            checkpoint.document = pack(
                content, lambda snapshot, path: self._pack_snapshot(snapshot, path, checkpoint)
            )
        except (TypeError, RecursionError) as error:
            where = str(error).removeprefix("state.")
            raise UserError(f"a checkpoint cannot store what a part of your own keeps: {where}") from error
        if self._unwritten_best is not None:
            self._start(self._unwritten_best)
            self.wait()
        self._start(checkpoint)

    def wait(self) -> None:
        """Wait until no checkpoint is being written."""
        if self._in_progress is None:
            return
        (writing, checkpoint), self._in_progress = self._in_progress, None
        try:
            writing.result()
        except OSError as error:
            self.failed = True
            self._unwritten_best = checkpoint if BEST in checkpoint.names else self._unwritten_best
            kept = "the last valid one is kept, " if is_file(self.directory / LATEST) else ""
            log.warning(
                "the checkpoint of step %d could not be written to %s (%s); training continues, %sand "
                "writing is tried again with the next one",
                checkpoint.document["step"],
                self.directory,
                error,
                kept,
            )
        else:
            self.failed = False
            if BEST in checkpoint.names:
                self._unwritten_best = None
            elif self._unwritten_best is not None and LATEST in self._unwritten_best.names:
                self._unwritten_best.names.remove(LATEST)  # a newer checkpoint has that name now

    def move_to(self, directory: Path) -> None:
        """Write the following checkpoints to `directory`, to which the present one was renamed."""
        self.wait()
        self.directory = directory
        self._segments = directory / segments.FOLDER
        self._retention = Retention(directory, self._keep_last)

    def close(self) -> None:
        """Wait until the last checkpoint is written, and end the thread."""
        self.wait()
        self._writer.shutdown()

    def resume_from(self, source: Path, best_step: int) -> None:
        """Restore the checkpoint files to what they were when `source` was written.

        Completes what a crash interrupted, names `source` latest.pt, renames numbered checkpoints of later
        steps to `superseded_*`, and restores the best.pt of env step `best_step`. Does nothing if `source` is
        in another directory.
        """
        if source.resolve().parent != self.directory.resolve():
            return
        for directory in (self.directory, self._segments):
            files.remove_leftovers(directory)
        document = read_document(source)
        step: int = document["step"]
        latest = self.directory / LATEST
        if source.name == LATEST:
            for name in document["names"]:
                if name != BEST and not is_file(self.directory / name):
                    files.publish(latest, self.directory / name)
        else:
            self._keep_later_latest(step)
            files.publish(source, latest)
        for path, later in numbered_in(self.directory).items():
            if later > step:
                files.rename(path, f"superseded_{path.name}")
        self._restore_best(step, best_step)
        self._written_segments = {
            path: {segment.stop: segment for segment in found}
            for path, found in segments_in(document).items()
        }
        self._retention.delete_expired()

    def _keep_later_latest(self, step: int) -> None:
        """Publish latest.pt, if it is valid and later than `step`, under its numbered name."""
        latest = self.directory / LATEST
        with suppress(UserError):
            found: int = read_document(latest)["step"]
            if found > step:
                files.publish(latest, self.directory / numbered_name(found))

    def _restore_best(self, step: int, best_step: int) -> None:
        """Make best.pt the checkpoint of env step `best_step`, if a file of it is left."""
        best, previous = self.directory / BEST, self.directory / best_name(best_step)
        found = None
        if is_file(best):
            try:
                found = read_document(best)["step"]
            except UserError:
                files.rename(best, f"damaged_{BEST}")
        if found == best_step:
            return
        if found is not None and found > best_step:
            files.rename(best, best_name(found))
        same = self.directory / (LATEST if step == best_step else numbered_name(best_step))
        if is_file(previous):
            files.rename(previous, BEST)
        elif is_file(same):
            files.publish(same, best)

    def _start(self, checkpoint: _PendingCheckpoint) -> None:
        self._in_progress = self._writer.submit(self._write, checkpoint), checkpoint

    def _pack_snapshot(self, snapshot: RowSnapshot, path: str, checkpoint: _PendingCheckpoint) -> State:
        """What the document stores for `snapshot`: names of full segments, and the rows after them.

        Rows of segments that are not on disk yet are copied to `checkpoint.new_segments`.
        """
        size = segments.rows_per_segment(snapshot.row_bytes)
        written = self._written_segments.setdefault(path, {})
        for stop in [stop for stop in written if stop <= snapshot.start]:
            del written[stop]
        entries: list[list[Any]] = []
        for stop in range(snapshot.start // size * size + size, snapshot.stop + 1, size):
            if stop in written and (self._segments / written[stop].name).exists():
                entries.append(list(written[stop]))
                continue
            start = max(snapshot.start, stop - size)
            entry: list[Any] = [start, stop, ""]
            entries.append(entry)
            checkpoint.new_segments.append(_NewSegment(entry, path, snapshot.read(start, stop)))
        tail = _tensors(snapshot.read(max(snapshot.start, snapshot.stop // size * size), snapshot.stop))
        place = {"start": snapshot.start, "stop": snapshot.stop, "row_bytes": snapshot.row_bytes}
        return {SNAPSHOT: True, **place, "segments": entries, "tail": tail}

    def _write(self, checkpoint: _PendingCheckpoint) -> None:
        """Write a checkpoint durably, in the background thread; segments before the file that names them."""
        if not self.directory.parent.is_dir():  # the run directory was removed
            raise FileNotFoundError(errno.ENOENT, "the directory does not exist", str(self.directory.parent))
        files.make_directory(self.directory)
        for new in checkpoint.new_segments:
            start, _, name = new.entry
            if not name:
                segment = segments.write_segment(self._segments, start, new.columns)
                new.entry[2] = segment.name
                self._written_segments[new.path][segment.stop] = segment
        self._sync()
        content = encode(checkpoint.document)
        best = self.directory / BEST
        if checkpoint.previous_best and is_file(best):
            files.publish(best, self.directory / checkpoint.previous_best)
        first, *others = (self.directory / name for name in checkpoint.names)
        files.write_atomically(first, content)
        self._retention.record(first, checkpoint.document)
        for other in others:
            files.publish(first, other)
        waiting = self._unwritten_best
        self._retention.delete_expired(None if waiting is None else waiting.document)


def _tensors(columns: dict[str, Array]) -> State:
    return {name: torch.from_numpy(column) for name, column in columns.items()}
