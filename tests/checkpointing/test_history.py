"""Random sequences of saving and resuming, compared with a model that keeps every saved state in memory."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqn_runner.checkpointing import segments
from dqn_runner.checkpointing.checkpointer import Checkpointer
from dqn_runner.checkpointing.format import load_checkpoint, read_document, segments_in
from dqn_runner.checkpointing.names import BEST, LATEST, best_name, numbered_name
from dqn_runner.core.state import RowSnapshot
from dqn_runner.io import files

SEGMENT = 4
"""Rows per segment in these tests, so that a few rows fill many segments."""


class UnsyncedDisk:
    """Replaces `os` in `files`: `fsync` does nothing, since no power loss happens here."""

    def __getattr__(self, name: str) -> Any:
        return (lambda _: None) if name == "fsync" else getattr(os, name)


@contextmanager
def small_segments() -> Iterator[Path]:
    """A temporary directory for checkpoints, while segments have SEGMENT rows."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(segments, "rows_per_segment", lambda _: SEGMENT)
        patch.setattr(files, "os", UnsyncedDisk())
        yield Path(folder)


class Memory:
    """A model of a replay: the values of the newest `capacity` rows, and the number of the oldest one."""

    def __init__(self, capacity: int, held: list[int], start: int) -> None:
        self.capacity, self.held, self.start = capacity, held, start

    def add(self, value: int, forget: int) -> None:
        """Add a row, and drop the `forget` oldest rows even if the capacity is not reached."""
        self.held = [*self.held, value]
        surplus = max(0, len(self.held) - self.capacity)
        dropped = max(surplus, min(forget, len(self.held)))
        self.held, self.start = self.held[dropped:], self.start + dropped

    def snapshot(self) -> RowSnapshot:
        held, first = list(self.held), self.start

        def read(start: int, stop: int) -> dict[str, Any]:
            assert first <= start <= stop <= first + len(held)
            chosen = held[start - first : stop - first]
            return {
                "value": np.array(chosen, np.int64),
                "pair": np.array([[v, -v] for v in chosen], np.int64).reshape(-1, 2),
            }

        return RowSnapshot(first, first + len(held), 8, read)


def values_of(snapshot: RowSnapshot) -> list[int]:
    """The values in a snapshot whose columns are consistent."""
    columns = {name: np.asarray(column).tolist() for name, column in snapshot.all().items()}
    assert columns["pair"] == [[v, -v] for v in columns["value"]]
    assert len(columns["value"]) == snapshot.stop - snapshot.start
    return columns["value"]


class Model:
    """A run that saves and resumes, and what its directory must contain."""

    def __init__(self, directory: Path, capacities: tuple[int, int], keep_last: int) -> None:
        self.directory, self.keep_last = directory, keep_last
        self.memories = [Memory(capacity, [], 0) for capacity in capacities]
        self.step = self.best_step = self.values = 0
        self.saved: list[dict[str, Any]] = []
        """Every state that was saved."""
        self.files: dict[str, int] = {}
        """Index into `saved` of the content of latest.pt and of each numbered file."""
        self.checkpointer = Checkpointer(directory, keep_last)

    def add(self, count: int, forget: int) -> None:
        self.step += count
        for _ in range(count):
            for memory in self.memories:
                self.values += 1
                memory.add(self.values, forget)

    def save(self, numbered: bool, best: bool, keep_previous_best: bool) -> None:
        names = [numbered_name(self.step)] * numbered + [BEST] * best
        previous_best = best_name(self.best_step) if best and keep_previous_best else None
        self.best_step = self.step if best else self.best_step
        held = [(list(memory.held), memory.start) for memory in self.memories]
        memories = dict(zip(("rows", "frames"), [m.snapshot() for m in self.memories], strict=True))
        payload = {"id": len(self.saved), "source": {}, "state": {"replay": memories}}
        self.checkpointer.save(payload, self.step, [*names, LATEST], previous_best)
        self.files |= dict.fromkeys([n for n in (*names, LATEST) if n != BEST], len(self.saved))
        self.saved.append({"step": self.step, "best_step": self.best_step, "held": held})
        self._retain()

    def resume(self, name: str, new_process: bool) -> None:
        """Resume from the file `name`, with a new Checkpointer as in a new process, or with the same one."""
        self.checkpointer.wait()
        if new_process:
            self.checkpointer.close()
            self.checkpointer = Checkpointer(self.directory, self.keep_last)
        number: int = load_checkpoint(self.directory / name)["id"]
        state = self.saved[number]
        self.checkpointer.resume_from(self.directory / name, state["best_step"])
        self.step, self.best_step = state["step"], state["best_step"]
        for memory, (held, start) in zip(self.memories, state["held"], strict=True):
            memory.held, memory.start = list(held), start
        self.files = {
            n: i for n, i in self.files.items() if n != LATEST and self.saved[i]["step"] <= self.step
        }
        self.files[LATEST] = number
        self._retain()

    def _retain(self) -> None:
        numbered = sorted(name for name in self.files if name != LATEST)
        for name in numbered[: max(0, len(numbered) - self.keep_last)]:
            del self.files[name]

    def check(self) -> None:
        """Every file contains exactly what was saved under its name, and no other file exists."""
        self.checkpointer.wait()
        assert not self.checkpointer.failed
        present = {path.name: load_checkpoint(path) for path in self.directory.glob("*.pt")}
        held = {name: document["id"] for name, document in present.items()}
        assert {n: i for n, i in held.items() if n == LATEST or n.startswith("checkpoint_")} == self.files
        for name, document in present.items():
            state, rows = self.saved[document["id"]], document["state"]["replay"]
            assert [(values_of(rows[key]), rows[key].start) for key in ("rows", "frames")] == state["held"]
            assert document["step"] == state["step"] == int(re.sub(r"\D", "", name) or state["step"])
        if BEST in present:
            assert present[BEST]["step"] == self.best_step
        assert not list(self.directory.rglob("*.tmp"))
        named = {
            segment.name
            for name in present
            for found in segments_in(read_document(self.directory / name)).values()
            for segment in found
        }
        assert {path.name for path in self.directory.rglob("*.npz")} == named, (
            "only segments that a checkpoint names"
        )


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 9), st.integers(0, 3)),
        st.tuples(st.just("save"), st.booleans(), st.booleans(), st.booleans()),
        st.tuples(st.just("resume"), st.integers(0, 5), st.booleans()),
    ),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=100, derandomize=True)
@given(
    capacities=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    keep_last=st.integers(0, 3),
    operations=OPERATIONS,
)
def test_every_kept_checkpoint_holds_what_was_saved(
    capacities: tuple[int, int], keep_last: int, operations: list[tuple[Any, ...]]
) -> None:
    with small_segments() as directory:
        model = Model(directory, capacities, keep_last)
        for kind, *arguments in operations:
            if kind == "add":
                model.add(*arguments)
            elif kind == "save":
                model.save(*arguments)
            elif model.files:
                model.checkpointer.wait()
                pattern = re.compile(r"(latest|best|checkpoint_\d+)\.pt")
                names = sorted(p.name for p in directory.glob("*.pt") if pattern.fullmatch(p.name))
                model.resume(names[arguments[0] % len(names)], arguments[1])
            model.check()
        model.checkpointer.close()
