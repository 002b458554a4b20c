"""After a crash between any two disk operations, the directory holds the old state or the new one.

A recorder replaces `os` while a run saves several checkpoints and resumes from some. After each operation it
computes what the disk may contain if the process is killed there or the machine loses power: data that was
not synced may be complete, missing or partial, and each change of a name that was not synced may be missing.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dqn_runner.checkpointing import segments
from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.checkpointing.names import LATEST, numbered_name
from dqn_runner.checkpointing.recovery import load_newest_valid
from dqn_runner.io import files
from tests.checkpointing.test_history import SEGMENT, Model, UnsyncedDisk, values_of

Names = dict[Path, int]
"""Path of a file to the number of its inode."""


@dataclass
class Contents:
    """Content of a disk: names and data, each as programs see it and as it is durable."""

    names: Names = field(default_factory=Names)
    durable_names: Names = field(default_factory=Names)
    pending: list[Callable[[Names], None]] = field(default_factory=list[Callable[[Names], None]])
    data: dict[int, bytes] = field(default_factory=dict[int, bytes])
    durable_data: dict[int, bytes] = field(default_factory=dict[int, bytes])

    def rename(self, change: Callable[[Names], None]) -> None:
        """Apply a change of names, which becomes durable when the directory is synced."""
        change(self.names)
        self.pending.append(change)

    def sync_names(self) -> None:
        """Make the names in all directories durable; their order within a directory matters here."""
        self.durable_names, self.pending = dict(self.names), []

    def after_kill(self) -> dict[Path, tuple[int, bytes]]:
        """Files after SIGKILL: path to inode and data."""
        return {path: (inode, self.data[inode]) for path, inode in self.names.items()}

    def after_power_loss(self, rng: random.Random) -> Iterator[dict[Path, tuple[int, bytes]]]:
        """Files after a power loss: none, all or some of the unsynced names, and part of unsynced data."""
        for share in (0.0, 1.0, 0.5, 0.5):
            names = dict(self.durable_names)
            for change in self.pending:
                if rng.random() < share:
                    change(names)
            content: dict[Path, tuple[int, bytes]] = {}
            for path, inode in names.items():
                full, durable = self.data[inode], self.durable_data.get(inode, b"")
                length = rng.randint(len(durable), len(full)) if share == 0.5 else len(durable)
                content[path] = inode, full[:length]
            yield content


class Recorder:
    """Replaces `os` in `files`: executes each operation and reports what a crash may leave on the disk."""

    def __init__(self, report: Callable[[dict[Path, tuple[int, bytes]]], None], links: bool) -> None:
        self.contents = Contents()
        self._report, self._links = report, links
        self._open: dict[int, Path] = {}
        self._inodes = 0
        self._rng = random.Random(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = os.open(path, flags, mode)
        self._open[descriptor] = path
        if flags & os.O_CREAT:
            assert flags & os.O_EXCL, "an existing file is never written to"
            self._inodes += 1
            inode = self._inodes
            self.contents.data[inode] = b""
            self._change(lambda names: names.__setitem__(path, inode))
        return descriptor

    def write(self, descriptor: int, content: Any) -> int:
        inode, half = self.contents.names[self._open[descriptor]], len(content) // 2
        self.contents.data[inode] += bytes(content[:half])
        self._report_crashes()
        self.contents.data[inode] += bytes(content[half:])
        self._report_crashes()
        return os.write(descriptor, content)

    def fsync(self, descriptor: int) -> None:
        path = self._open[descriptor]
        if path.is_dir():
            self.contents.sync_names()
        else:
            inode = self.contents.names[path]
            self.contents.durable_data[inode] = self.contents.data[inode]
        self._report_crashes()

    def link(self, source: Path, target: Path) -> None:
        if not self._links:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        os.link(source, target)
        inode = self.contents.names[source]
        self._change(lambda names: names.__setitem__(target, inode))

    def replace(self, source: Path, target: Path) -> None:
        assert not (target.exists() and target.samefile(source)), (
            "a rename between two links to the same file leaves both"
        )
        os.replace(source, target)  # noqa: PTH105
        inode = self.contents.names[source]

        def change(names: Names) -> None:
            names.pop(source, None)
            names[target] = inode

        self._change(change)

    def unlink(self, path: Path) -> None:
        os.unlink(path)  # noqa: PTH108
        self._change(lambda names: names.pop(path, None))

    def _change(self, change: Callable[[Names], Any]) -> None:
        self.contents.rename(change)
        self._report_crashes()

    def _report_crashes(self) -> None:
        self._report(self.contents.after_kill())
        for content in self.contents.after_power_loss(self._rng):
            self._report(content)


class Crashes:
    """Every disk content after a crash, each once, and the saved states from which a run may resume."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.allowed: set[int | None] = {None}
        """Indices of the saved states from which the run may resume; None if it may start from scratch."""
        self.found: dict[Any, set[int | None]] = {}

    def __call__(self, content: dict[Path, tuple[int, bytes]]) -> None:
        state = frozenset((path.relative_to(self.directory), *file) for path, file in content.items())
        self.found.setdefault(state, set()).update(self.allowed)


def lay_out(state: frozenset[tuple[Path, int, bytes]], directory: Path) -> None:
    """Create the files of `state`; names of the same inode are hard links."""
    first: dict[int, Path] = {}
    for name, inode, content in state:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if inode in first:
            path.hardlink_to(first[inode])
        else:
            first[inode] = path
            path.write_bytes(content)


def check_resume(model: Model, directory: Path, allowed: set[int | None]) -> None:
    """`directory` contains one of the `allowed` states, and a run that resumes from it saves as usual."""
    present = {path.name: load_checkpoint(path) for path in directory.glob("*.pt")}
    for document in present.values():
        rows = document["state"]["replay"]
        held = [(values_of(rows[key]), rows[key].start) for key in ("rows", "frames")]
        assert held == model.saved[document["id"]]["held"]
    if not present:
        assert None in allowed
        return
    accepted: list[Any] = []
    reported: list[str] = []
    load_newest_valid(directory / LATEST, accepted.append, reported.append)
    assert reported == [], "no file is damaged"
    assert accepted[-1]["id"] in allowed

    resumed = Model(directory, (5, 9), keep_last=1)
    resumed.saved, resumed.values = list(model.saved), 10_000
    counted = {n: d["id"] for n, d in present.items() if n == LATEST or n.startswith("checkpoint_")}
    resumed.files = counted | {
        n: accepted[-1]["id"] for n in accepted[-1]["names"] if n.startswith("checkpoint_")
    }
    resumed.resume(LATEST, new_process=False)
    resumed.check()
    resumed.add(3, forget=0)
    resumed.save(numbered=True, best=False, keep_previous_best=False)
    resumed.check()
    resumed.checkpointer.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "links", [pytest.param(True, id="links"), pytest.param(False, id="copies", marks=pytest.mark.nightly)]
)
def test_a_crash_after_any_disk_operation_leaves_the_old_state_or_the_new_one(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "rows_per_segment", lambda _: SEGMENT)
    directory = tmp_path / "run"
    directory.mkdir()
    crashes = Crashes(directory)
    model = Model(directory, (5, 9), keep_last=1)
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", Recorder(crashes, links))

        def save(numbered: bool, best: bool, keep_previous_best: bool = False) -> None:
            model.add(4, forget=0)
            crashes.allowed |= {len(model.saved)}
            model.save(numbered, best, keep_previous_best)
            model.checkpointer.wait()
            crashes.allowed = {len(model.saved) - 1}

        def resume(name: str, number: int) -> None:
            crashes.allowed |= {number}
            model.resume(name, new_process=True)
            crashes.allowed = {number}

        save(numbered=True, best=True)
        save(numbered=False, best=False)
        save(numbered=True, best=True, keep_previous_best=True)
        save(numbered=True, best=False)
        resume(numbered_name(16), 3)
        save(numbered=False, best=True)
        resume(numbered_name(16), 3)
        save(numbered=True, best=False)
        save(numbered=True, best=False)
        model.check()
        model.checkpointer.close()
    monkeypatch.setattr(files, "os", UnsyncedDisk())
    for number, (state, allowed) in enumerate(crashes.found.items()):
        crashed = tmp_path / str(number)
        crashed.mkdir()
        lay_out(state, crashed)
        check_resume(model, crashed, allowed)
    assert len(crashes.found) > 100
