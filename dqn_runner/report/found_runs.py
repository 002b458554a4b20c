"""Finds runs and sweeps below directories."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dqn_runner.core.exceptions import UserError
from dqn_runner.io.entries import is_file
from dqn_runner.report.stored_run import StoredRun, is_run, read_run
from dqn_runner.sweep.names import JOURNAL, RESULTS

NOT_SEARCHED = ("node_modules", "__pycache__")
"""Large directories of other programs, which contain no runs."""


def is_sweep(directory: Path) -> bool:
    """Whether a directory is that of a sweep with Optuna."""
    return is_file(directory / RESULTS) or is_file(directory / JOURNAL)


def run_directories(directory: Path) -> Iterator[Path]:
    """The directories of runs at and below `directory`, in natural order; links are not followed.

    Within the directory of a run there are at most those of a validation, `seed_1` and so on.
    """
    inside = is_run(directory)
    if inside:
        yield directory
    for name in _below(directory):
        if name.startswith("seed_") if inside else name not in NOT_SEARCHED and not name.startswith("."):
            yield from run_directories(directory / name)


def sweep_directories(directory: Path) -> Iterator[Path]:
    """The directories of sweeps at and below `directory`, in natural order; links are not followed."""
    if is_sweep(directory):
        yield directory
    elif not is_run(directory):
        for name in _below(directory):
            if name not in NOT_SEARCHED and not name.startswith("."):
                yield from sweep_directories(directory / name)


def _below(directory: Path) -> list[str]:
    """The names of the directories in a directory; none if it cannot be read."""
    try:
        with os.scandir(directory) as entries:
            return sorted((e.name for e in entries if e.is_dir(follow_symlinks=False)), key=_natural)
    except OSError:
        return []


@dataclass(frozen=True)
class Compared:
    """What several paths name."""

    runs: list[tuple[Path, StoredRun]]
    """Each with the path, or the sweep below it, that it belongs to."""
    sweeps: list[Path]
    """The sweeps of which only the best configuration is compared."""
    left_out: list[str]
    """Sweeps below a path of which nothing can be compared, with the reason."""


def runs_to_compare(paths: Sequence[Path]) -> Compared:
    """The runs that `paths` name; of a sweep at or below a path, those of its best configuration.

    Raises UserError for a path without runs.
    """
    found: list[tuple[Path, Path]] = []
    sweeps: list[Path] = []
    left_out: list[str] = []
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path} is not a directory; give the directory of a run or of a sweep")
        below = list(sweep_directories(path))
        directories = [run for run in run_directories(path) if not any(map(run.is_relative_to, below))]
        of_path = [(path, directory) for directory in directories]
        for sweep in below:
            try:
                of_path += [(sweep, directory) for directory in best_runs(sweep)]
                sweeps.append(sweep)
            except UserError as error:
                if sweep == path:
                    raise
                left_out.append(str(error))
        if not of_path:
            raise UserError(left_out[0] if left_out else f"{path} contains no runs")
        found += of_path
    once: dict[Path, tuple[Path, Path]] = {}  # a run that several paths name is one run
    for path, directory in found:
        once.setdefault(directory.resolve(), (path, directory))
    return Compared([(path, read_run(directory)) for path, directory in once.values()], sweeps, left_out)


def best_runs(sweep: Path) -> list[Path]:
    """The runs of the best trial of a sweep: those on fresh seeds, or else those that selected it.

    Raises UserError if no trial has completed, or if the sweep has several objectives.
    """
    import yaml

    if not is_file(sweep / RESULTS):
        raise UserError(f"no trial of the sweep {sweep} has finished yet")
    try:
        document: Any = yaml.safe_load((sweep / RESULTS).read_text(encoding="utf-8"))
        trial, validation = document.get("best_trial"), document.get("validation")
        fresh = list(validation["seeds"]) if validation else []
        selecting = document.get("seeds")
    except (yaml.YAMLError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{sweep / RESULTS} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(trial, int):
        raise UserError(f"the sweep {sweep} has no best trial to compare: give the directories of its trials")
    directory = sweep / str(trial)
    validated = [path for seed in fresh if is_run(path := directory / f"seed_{seed}")]
    if validated or is_run(directory):  # a trial with one seed is a run itself
        return validated or [directory]
    if not isinstance(selecting, list):
        raise UserError(
            f"{sweep / RESULTS} does not say with which seeds the trials were run; repeat the command of the "
            "sweep, which writes it again"
        )
    return [path for seed in cast("list[Any]", selecting) if is_run(path := directory / f"seed_{seed}")]


def _natural(name: str) -> tuple[bool, int, str]:
    """Numbers before words, in their order."""
    return (False, int(name), "") if name.isdecimal() else (True, 0, name)
