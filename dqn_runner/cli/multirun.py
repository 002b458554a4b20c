"""A plain `-m`: checks its jobs before anything is written, runs them, and prints a table of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.secrets import redact
from dqn_runner.io.terminal import terminal
from dqn_runner.report.listing import Entry, Listing
from dqn_runner.report.terminal import table, with_what_differs
from dqn_runner.run.contents import JOBS, holds_run, reject_run


def run_jobs(sweeper: Any, arguments: Sequence[str]) -> list[JobReturn]:
    """What Hydra's own sweeper does with the overrides `arguments`; raises what the first failed job raised.

    Hydra writes its file before it checks the jobs.
    """
    batches = _checked_batches(sweeper, arguments)
    directory = Path(sweeper.config.hydra.sweep.dir)
    reject_run(directory)
    _save_for_new_sweep(sweeper.config, directory)
    done: list[JobReturn] = []
    try:
        for batch in batches:
            done += sweeper.launcher.launch(batch, initial_job_idx=len(done))
            for job in done[-len(batch) :]:
                _ = job.return_value  # raises what the job raised
    finally:
        _print_table(directory, done)
    return done


def _checked_batches(sweeper: Any, arguments: Sequence[str]) -> list[list[list[str]]]:
    """The overrides of the jobs; raises an error if one of them cannot be composed."""
    parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
    overrides = parser.parse_overrides([*sweeper._parse_config(), *arguments])
    _reject_empty_lists(overrides)
    batches = sweeper.split_arguments(overrides, sweeper.max_batch_size)
    for batch in batches:
        sweeper.validate_batch_is_legal(batch)
    return batches


def _reject_empty_lists(overrides: Sequence[Override]) -> None:
    for override in overrides:
        if override.is_discrete_sweep() and not [*override.sweep_iterator()]:
            key, is_glob = override.key_or_group, isinstance(override.value(), Glob)
            lacks = f"matches no option of {key}" if is_glob else "has no values"
            raise UserError(f"the sweep has no jobs: {override.input_line} {lacks}")


def _save_for_new_sweep(config: DictConfig, directory: Path) -> None:
    """Write `multirun.yaml` unless the directory has runs, of which it tells the first command."""
    directory.mkdir(parents=True, exist_ok=True)
    if not any(map(holds_run, directory.iterdir())):
        OmegaConf.save(config, directory / JOBS)


def _print_table(directory: Path, done: Sequence[JobReturn]) -> None:
    """Print directory, state, score and settings of each job, and how many have failed."""
    runs = {entry.path: entry for entry in Listing(directory).entries()}
    failed = {_path(job, directory): job for job in done if job.status is JobStatus.FAILED}
    for path, job in failed.items():
        runs[path] = replace(runs.get(path) or _without_run(job, path, directory), state="failed")
    if not runs:
        return
    console = terminal()
    console.print(f"\nruns in {directory}:")
    console.print(table(with_what_differs(runs.values()), console.width))
    if failed:
        console.print(f"{len(failed)} of {len(done)} jobs failed: {', '.join(failed)}")


def _path(job: JobReturn, directory: Path) -> str:
    """The directory of a job, relative to that of the sweep, as a listing has it."""
    assert job.hydra_cfg is not None
    return os.path.relpath(job.hydra_cfg.hydra.runtime.output_dir, directory)


def _without_run(job: JobReturn, path: str, directory: Path) -> Entry:
    """The row of a job that failed before it began a run."""
    overrides = redact(" ".join(job.overrides or ()))
    where = directory / path
    changed = where.stat().st_mtime if where.exists() else 0.0  # a launcher may have run it elsewhere
    return Entry(path, "", "", 0, score=None, best=None, eta=None, changed=changed, overrides=overrides)
