"""Which checkpoint a run resumes from: the requested one, or the newest valid one before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from dqn_runner.checkpointing.format import load_checkpoint, read_document, without_alternatives
from dqn_runner.checkpointing.names import BEST, CHECKPOINTS, LATEST
from dqn_runner.checkpointing.retention import checkpoints_in, numbered_in
from dqn_runner.core.exceptions import DamagedError, UserError
from dqn_runner.core.state import State

_NONSENSE = (
    *(AttributeError, IndexError, KeyError, MemoryError, OverflowError, RecursionError, RuntimeError),
    *(TypeError, ValueError),
)
"""What Python, numpy and torch raise for a value of the wrong type or size."""


def find_checkpoint(path: Path) -> Path:
    """Return the latest checkpoint if `path` is a directory of a run or of checkpoints, else `path`."""
    if path.name == LATEST and path.parent.name == CHECKPOINTS:  # even if it is a directory by mistake
        return path
    if (path / LATEST).is_file():
        return path / LATEST
    return path / CHECKPOINTS / LATEST if path.is_dir() else path


def has_checkpoints(run_dir: Path) -> bool:
    """Whether a run directory has any checkpoint to resume from, or a latest one that a broken link hides."""
    directory = run_dir / CHECKPOINTS
    names = (path.name for path in checkpoints_in(directory))
    return (directory / LATEST).is_symlink() or any(not name.startswith("damaged_") for name in names)


def load_newest_valid(
    path: Path,
    accept: Callable[[State], None],
    report: Callable[[str], None],
    mismatch_with: Callable[[State], str | None] = lambda _: None,
) -> Path:
    """Load the checkpoint `path` or, if it is damaged, the newest valid one of the run before it.

    Args:
        path: The requested checkpoint.
        accept: Called with the content of a checkpoint. Raises DamagedError if it finds damage in a segment
            that it reads, and any UserError to reject an older checkpoint.
        report: Called with one line that lists the skipped checkpoints and the one that is used, if any was
            skipped.
        mismatch_with: Returns why an older checkpoint belongs to another run; None if it does not.

    Returns the file that was accepted. Raises UserError if no checkpoint was.
    """
    skipped: list[UserError] = []
    for candidate in chain([path], _older(path)):
        try:
            document = load_checkpoint(candidate)
            with nonsense_is_damage(candidate):
                if skipped and (reason := mismatch_with(document)):
                    raise UserError(f"{candidate} is of another run: {reason}")
                accept(document)
        except UserError as error:
            if not skipped and candidate.exists() and not isinstance(error, DamagedError):
                raise
            skipped.append(error)
        else:
            if skipped:
                report(f"{_listed(skipped)}; {candidate.name} is used instead")
            return candidate
    first, *others = skipped
    raise DamagedError(f"{_listed(skipped)}; no other checkpoint is left") if others else first


@contextmanager
def nonsense_is_damage(path: Path) -> Generator[None]:
    """Raise DamagedError for an error that only a checkpoint `path` with the wrong content can cause."""
    try:
        yield
    except _NONSENSE as error:
        if type(error) is KeyError:
            reason = f"{error} is missing"
        else:
            reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise DamagedError(f"{path} does not hold such a run: {' '.join(reason.split())}") from error


def _listed(errors: list[UserError]) -> str:
    return "; ".join(map(without_alternatives, errors))


def _older(path: Path) -> Iterator[Path]:
    """The checkpoints of the run before `path`, which cannot be used itself, newest first."""
    steps = numbered_in(path.parent)
    if path.name == LATEST:
        with suppress(UserError):
            best = path.with_name(BEST)
            steps[best] = read_document(best)["step"]
    before = math.inf if path.name == LATEST else steps.get(path, -1)
    yield from sorted((p for p in steps if steps[p] < before), key=lambda p: steps[p], reverse=True)
