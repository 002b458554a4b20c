"""Checkpoints of a growing memory against a plain list, whatever is saved, kept and gone back to."""

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
from dqn_runner.checkpointing.checkpointer import BEST, LATEST, Checkpointer, best_name, numbered_name
from dqn_runner.checkpointing.format import load_checkpoint, read_document, stored_segments
from dqn_runner.core.state import ReplaySnapshot
from dqn_runner.io import files

SEGMENT = 4
"""ReplaySnapshot of a segment in these tests, so that few rows make many."""


class UnsyncedDisk:
    """`os` for `files`, but `fsync` returns at once: nobody pulls the plug here."""

    def __getattr__(self, name: str) -> Any:
        return (lambda _: None) if name == "fsync" else getattr(os, name)


@contextmanager
def small_segments() -> Iterator[Path]:
    """A directory for checkpoints whose segments are small."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(segments, "length", lambda _: SEGMENT)
        patch.setattr(files, "os", UnsyncedDisk())
        yield Path(folder)


class Memory:
    """Numbered rows of which the newest `capacity` are held, and each once said what it holds."""

    def __init__(self, capacity: int, held: list[int], start: int) -> None:
        self.capacity, self.held, self.start = capacity, held, start

    def add(self, value: int, forget: int) -> None:
        """One row more; `forget` older ones go though there would be room for them."""
        self.held = [*self.held, value]
        surplus = max(0, len(self.held) - self.capacity)
        gone = max(surplus, min(forget, len(self.held)))
        self.held, self.start = self.held[gone:], self.start + gone

    def rows(self) -> ReplaySnapshot:
        held, first = list(self.held), self.start

        def read(start: int, stop: int) -> dict[str, Any]:
            assert first <= start <= stop <= first + len(held)
            chosen = held[start - first : stop - first]
            return {
                "value": np.array(chosen, np.int64),
                "pair": np.array([[v, -v] for v in chosen]).reshape(-1, 2),
            }

        return ReplaySnapshot(first, first + len(held), 8, read)


def value_of(rows: ReplaySnapshot) -> list[int]:
    columns = {name: np.asarray(column).tolist() for name, column in rows.all().items()}
    assert columns["pair"] == [[v, -v] for v in columns["value"]]
    assert len(columns["value"]) == rows.stop - rows.start
    return columns["value"]


class Model:
    """A run that saves and goes back, and what must then be in its directory."""

    def __init__(self, directory: Path, capacities: tuple[int, int], keep_last: int) -> None:
        self.directory, self.keep_last = directory, keep_last
        self.memories = [Memory(capacity, [], 0) for capacity in capacities]
        self.step = self.best_step = self.values = 0
        self.saved: list[dict[str, Any]] = []
        """Everything that was ever saved."""
        self.files: dict[str, int] = {}
        """Which of them latest.pt and the numbered files hold."""
        self.checkpointer = Checkpointer(directory, keep_last)

    def add(self, count: int, forget: int) -> None:
        self.step += count
        for _ in range(count):
            for memory in self.memories:
                self.values += 1
                memory.add(self.values, forget)

    def save(self, numbered: bool, best: bool, aside: bool) -> None:
        names = [numbered_name(self.step)] * numbered + [BEST] * best
        set_aside = best_name(self.best_step) if best and aside else None
        self.best_step = self.step if best else self.best_step
        held = [(list(memory.held), memory.start) for memory in self.memories]
        memories = dict(zip(("rows", "frames"), [m.rows() for m in self.memories], strict=True))
        payload = {"id": len(self.saved), "state": {"replay": memories}}
        self.checkpointer.save(payload, self.step, [*names, LATEST], set_aside)
        self.files |= dict.fromkeys([n for n in (*names, LATEST) if n != BEST], len(self.saved))
        self.saved.append({"step": self.step, "best_step": self.best_step, "held": held})
        self._retain()

    def go_back(self, name: str, anew: bool) -> None:
        """Take up the file `name`, in a new process or in the same object."""
        self.checkpointer.wait()
        if anew:
            self.checkpointer.close()
            self.checkpointer = Checkpointer(self.directory, self.keep_last)
        number: int = load_checkpoint(self.directory / name)["id"]
        state = self.saved[number]
        self.checkpointer.take_up(self.directory / name, state["best_step"])
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
        """Every file there loads to exactly what was saved, under a name that says what it is."""
        self.checkpointer.wait()
        assert not self.checkpointer.failed
        present = {path.name: load_checkpoint(path) for path in self.directory.glob("*.pt")}
        held = {name: document["id"] for name, document in present.items()}
        assert {n: i for n, i in held.items() if n == LATEST or n.startswith("checkpoint_")} == self.files
        for name, document in present.items():
            state, rows = self.saved[document["id"]], document["state"]["replay"]
            assert [(value_of(rows[key]), rows[key].start) for key in ("rows", "frames")] == state["held"]
            assert document["step"] == state["step"] == int(re.sub(r"\D", "", name) or state["step"])
        if BEST in present:
            assert present[BEST]["step"] == self.best_step
        assert not list(self.directory.rglob("*.tmp"))
        named = {
            piece.name
            for name in present
            for pieces in stored_segments(read_document(self.directory / name)).values()
            for piece in pieces
        }
        assert {path.name for path in self.directory.rglob("*.npz")} == named, "no more segments than named"


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 9), st.integers(0, 3)),
        st.tuples(st.just("save"), st.booleans(), st.booleans(), st.booleans()),
        st.tuples(st.just("go_back"), st.integers(0, 5), st.booleans()),
    ),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True)
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
                model.go_back(names[arguments[0] % len(names)], arguments[1])
            model.check()
        model.checkpointer.close()
