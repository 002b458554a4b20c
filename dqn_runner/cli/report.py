"""mode=report: write the page of `python -m dqn_runner.report` to the directory of the job."""

from __future__ import annotations

import math
from pathlib import Path

from dqn_runner.checkpointing.names import CHECKPOINTS
from dqn_runner.cli.job import Job
from dqn_runner.core.exceptions import UserError
from dqn_runner.report.write import write_report
from dqn_runner.sweep.names import REPORT


def report(job: Job) -> float:
    """Write a page about the run of a checkpoint, about a sweep, or that compares the runs of a directory."""
    path = job.run.checkpoint.path
    if path is None:
        raise UserError("mode=report needs checkpoint=PATH: a run, a checkpoint of it, or a sweep")
    try:
        for written in write_report([_directory(Path(path))], job.run_dir / REPORT, None):
            print(f"written to {written}")
    except UserError as error:
        raise UserError(f"checkpoint={path}: {error}") from error
    return math.nan


def _directory(path: Path) -> Path:
    """The directory of the run that a checkpoint belongs to, or the directory itself."""
    if path.is_file():
        path = path.parent
    return path.parent if path.name == CHECKPOINTS else path
