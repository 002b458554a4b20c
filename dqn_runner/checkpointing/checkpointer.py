"""The checkpoints of one run: written beside training, published atomically, kept as long as wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dqn_runner.checkpointing import segments
from dqn_runner.checkpointing.format import ROWS, encode, pack, read_document, stored_segments
from dqn_runner.checkpointing.retention import NUMBERED, Retention, step_of
from dqn_runner.checkpointing.segments import Segment
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.log import log
from dqn_runner.core.state import ReplaySnapshot, State
from dqn_runner.core.types import Array
from dqn_runner.io import files

LATEST = "latest.pt"
BEST = "best.pt"


def numbered_name(step: int) -> str:
    """File name of the regular checkpoint of env step `step`; names sort by step."""
    return f"checkpoint_{step:010d}.pt"


def best_name(step: int) -> str:
    """File name under which the best checkpoint of env step `step` is set aside."""
    return f"best_{step:010d}.pt"


@dataclass
class _Job:
    """A consistent copy of a state, on its way to the disk."""

    document: State
    names: list[str]
    """The file is written under the first of them, and gets the others then."""
    set_best_aside: str | None
    fresh: list[tuple[list[Any], str, dict[str, Array]]] = field(
        default_factory=list[tuple[list[Any], str, dict[str, Array]]]
    )
    """ReplaySnapshot to seal: the piece in the document that will name them, its path, and their columns."""


class Checkpointer:
    """Writes the checkpoints of one run into one directory, one at a time, on a thread of its own."""

    def __init__(self, directory: Path, keep_last: int, sync: Callable[[], None] = lambda: None) -> None:
        """Of the numbered checkpoints the newest `keep_last` stay; best.pt and latest.pt always do.

        `sync` makes durable what else a checkpoint relies on; it is called before one is published.
        """
        self.directory = directory
        self.failed = False
        """Whether the last attempt to write failed."""
        self._segments = directory / segments.FOLDER
        self._retention = Retention(directory, keep_last)
        self._sync = sync
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._running: tuple[Future[None], _Job] | None = None
        self._unsaved_best: _Job | None = None
        self._sealed: dict[str, dict[int, Segment]] = {}
        """Segments on disk by the path of their rows and the number after their last."""

    def save(
        self, payload: State, step: int, names: Iterable[str], set_best_aside: str | None = None
    ) -> None:
        """Copy `payload` and begin to write it, as latest.pt and under each of `names`.

        Waits for the write before. A disk that does not take it is reported in the log and raises nothing;
        the next save tries again. The best.pt that is replaced stays as `set_best_aside`, if that is given.
        """
        self.wait()
        others = [name for name in names if name != LATEST]
        job = _Job({}, [LATEST, *others], set_best_aside)
        content = {"step": step, "names": others, **payload}
        job.document = pack(content, lambda rows, where: self._split(rows, where, job))
        if self._unsaved_best is not None:
            self._start(self._unsaved_best)
            self.wait()
        self._start(job)

    def wait(self) -> None:
        """Return when nothing is being written any more."""
        if self._running is None:
            return
        (running, job), self._running = self._running, None
        try:
            running.result()
        except OSError as error:
            self.failed = True
            self._unsaved_best = job if BEST in job.names else self._unsaved_best
            log.warning(
                "the checkpoint of step %d could not be written to %s (%s); training goes on, the last good "
                "checkpoint stays, and saving is tried again with the next one",
                job.document["step"],
                self.directory,
                error,
            )
        else:
            self.failed = False
            if BEST in job.names:
                self._unsaved_best = None
            elif self._unsaved_best is not None and LATEST in self._unsaved_best.names:
                self._unsaved_best.names.remove(LATEST)  # a newer one has that name now

    def close(self) -> None:
        """Finish what is being written, and end the thread."""
        self.wait()
        self._writer.shutdown()

    def take_up(self, source: Path, best_step: int) -> None:
        """Go on from `source`: complete what a crash left undone, and set the later checkpoints aside.

        Those of a run that was taken back to an earlier step stay as `superseded_*`. The best.pt of env
        step `best_step` gets its name back.
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
                if name != BEST and not (self.directory / name).exists():
                    files.publish(latest, self.directory / name)
        else:
            self._name_latest(step)
            files.publish(source, latest)
        for path in self.directory.glob(NUMBERED):
            if step_of(path) > step:
                files.rename(path, f"superseded_{path.name}")
        self._restore_best(step, best_step)
        self._sealed = {
            where: {piece.stop: piece for piece in pieces}
            for where, pieces in stored_segments(document).items()
        }
        self._retention.apply()

    def _name_latest(self, step: int) -> None:
        """Give latest.pt, if it is later than `step` and valid, a name of its own before it is replaced."""
        latest = self.directory / LATEST
        with suppress(UserError):
            found: int = read_document(latest)["step"]
            if found > step:
                files.publish(latest, self.directory / numbered_name(found))

    def _restore_best(self, step: int, best_step: int) -> None:
        best, aside = self.directory / BEST, self.directory / best_name(best_step)
        found = None
        if best.exists():
            try:
                found = read_document(best)["step"]
            except UserError:
                files.rename(best, f"damaged_{BEST}")
        if found == best_step:
            return
        if found is not None and found > best_step:
            files.rename(best, best_name(found))
        same = self.directory / (LATEST if step == best_step else numbered_name(best_step))
        if aside.exists():
            files.rename(aside, BEST)
        elif same.exists():
            files.publish(same, best)

    def _start(self, job: _Job) -> None:
        self._running = self._writer.submit(self._write, job), job

    def _split(self, rows: ReplaySnapshot, where: str, job: _Job) -> State:
        """What a document says of `rows`: the segments of those that fill one, and the rest themselves."""
        size = segments.length(rows.row_bytes)
        known = self._sealed.setdefault(where, {})
        for stop in [stop for stop in known if stop <= rows.start]:
            del known[stop]
        pieces: list[list[Any]] = []
        for stop in range(rows.start // size * size + size, rows.stop + 1, size):
            if stop in known:
                pieces.append(list(known[stop]))
                continue
            start = max(rows.start, stop - size)
            piece: list[Any] = [start, stop, ""]
            pieces.append(piece)
            job.fresh.append((piece, where, rows.read(start, stop)))
        tail = _tensors(rows.read(max(rows.start, rows.stop // size * size), rows.stop))
        place = {"start": rows.start, "stop": rows.stop, "row_bytes": rows.row_bytes}
        return {ROWS: True, **place, "segments": pieces, "tail": tail}

    def _write(self, job: _Job) -> None:
        """On the writer's thread: everything durable, the segments before what names them."""
        files.make_directory(self.directory)
        for piece, where, columns in job.fresh:
            if not piece[2]:
                sealed = segments.write(self._segments, piece[0], columns)
                piece[2] = sealed.name
                self._sealed[where][sealed.stop] = sealed
        self._sync()
        content = encode(job.document)
        best = self.directory / BEST
        if job.set_best_aside and best.exists():
            files.publish(best, self.directory / job.set_best_aside)
        first, *others = (self.directory / name for name in job.names)
        files.write_atomically(first, content)
        self._retention.note(first, job.document)
        for other in others:
            files.publish(first, other)
        self._retention.apply()


def _tensors(columns: dict[str, Array]) -> State:
    return {name: torch.from_numpy(column) for name, column in columns.items()}
