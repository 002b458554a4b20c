"""What a directory holds: a run, a finished one, or a sweep.

A run and a sweep have directories of their own. In a mixed one, a list shows the run alone, and a comparison
takes the files of either.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from dqn_runner.checkpointing.recovery import has_checkpoints
from dqn_runner.core.exceptions import UserError
from dqn_runner.io import json_io
from dqn_runner.io.entries import is_file
from dqn_runner.run.provenance import RUN

JOBS = "multirun.yaml"
"""What a plain `-m` writes before its first job."""
STUDY_FILES = ("study.journal", ".queue.lock", "optimization_results.yaml")
"""What a sweep with Optuna has, also if its study is in a database."""


def is_finished(run_dir: Path) -> bool:
    """Whether the metrics of a run say that it has finished."""
    path = run_dir / json_io.METRICS
    with suppress(UserError, AttributeError):  # it is damaged, or not a file of this program
        return is_file(path) and json_io.read_json(path).get("finished") is not None
    return False


def holds_run(directory: Path) -> bool:
    """Whether a directory has a run that was saved or has finished."""
    return has_checkpoints(directory) or is_finished(directory)


def holds_sweep(directory: Path) -> bool:
    """Whether a directory has a sweep, and no run.

    `multirun.yaml` without jobs below it belongs to a sweep whose only job runs in the directory of the sweep
    itself, as hydra.sweep.subdir=. says.
    """
    if _has_begun(directory) or not directory.is_dir():
        return False
    if any((directory / name).exists() for name in STUDY_FILES):
        return True
    return (directory / JOBS).exists() and any(map(_has_begun, directory.iterdir()))


def reject_sweep(directory: Path) -> None:
    """Raise UserError if `directory` is that of a sweep, before a run begins there."""
    if holds_sweep(directory):
        raise UserError(f"{directory} is the directory of a sweep; choose another one for the run")


def reject_run(directory: Path) -> None:
    """Raise UserError if `directory` is that of a run, before a sweep begins there."""
    swept = any((directory / name).exists() for name in (JOBS, *STUDY_FILES))
    if _has_begun(directory) and not swept:
        raise UserError(f"{directory} is the directory of a run; choose another hydra.sweep.dir")


def _has_begun(directory: Path) -> bool:
    """Whether a directory has a run, even one that has not been saved yet."""
    return (directory / RUN).exists() or holds_run(directory)
