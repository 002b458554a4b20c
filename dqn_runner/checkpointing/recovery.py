"""Which checkpoint a run goes on from: the one that is meant, or the newest valid one before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from dqn_runner.checkpointing.checkpointer import BEST, LATEST
from dqn_runner.checkpointing.format import load_checkpoint, read_document
from dqn_runner.checkpointing.retention import NUMBERED, step_of
from dqn_runner.core.exceptions import DamagedError, UserError
from dqn_runner.core.state import State


def find_checkpoint(path: Path) -> Path:
    """The file that a user means by `path`: a checkpoint, or the latest one of a run directory."""
    if (path / LATEST).is_file():
        return path / LATEST
    return path / "checkpoints" / LATEST if path.is_dir() else path


def has_checkpoints(run_dir: Path) -> bool:
    """Whether a run directory has anything to go on from."""
    return any((run_dir / "checkpoints").glob("*.pt"))


def load_newest_valid(
    path: Path,
    accept: Callable[[State], None],
    report: Callable[[str], None],
    mismatch_with: Callable[[State], str | None] = lambda _: None,
) -> Path:
    """Hand `accept` the checkpoint `path`, or where it is damaged the newest valid one before it.

    Returns the file that was taken. `accept` may find damage too, in the segments that it reads, and refuse
    an older one; `mismatch_with` says why an older one is none of this run. What was passed over, and what
    is used instead, is reported in one line.
    """
    passed_over: list[UserError] = []
    for candidate in chain([path], _older(path)):
        try:
            document = load_checkpoint(candidate)
            if passed_over and (why := mismatch_with(document)):
                raise UserError(f"{candidate} is of another run: {why}")
            accept(document)
        except UserError as error:
            if not passed_over and candidate.exists() and not isinstance(error, DamagedError):
                raise
            passed_over.append(error)
        else:
            if passed_over:
                report(f"{_listed(passed_over)}; {candidate.name} is used instead")
            return candidate
    first, *others = passed_over
    raise DamagedError(f"{_listed(passed_over)}; no other is left") if others else first


def _listed(errors: list[UserError]) -> str:
    """In one line, without the lists of what else there is."""
    return "; ".join(str(error).partition("; in ")[0] for error in errors)


def _older(path: Path) -> Iterator[Path]:
    """The checkpoints of the run before `path`, which cannot be used, from the newest on."""
    steps = {p: step_of(p) for p in path.parent.glob(NUMBERED)}
    if path.name == LATEST:
        with suppress(UserError):
            best = path.with_name(BEST)
            steps[best] = read_document(best)["step"]
    before = math.inf if path.name == LATEST else steps.get(path, -1)
    yield from sorted((p for p in steps if steps[p] < before), key=lambda p: steps[p], reverse=True)
