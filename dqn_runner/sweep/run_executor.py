"""Runs one seed of a trial as a job, and decides what the end of its process means."""

from __future__ import annotations

import os
from pathlib import Path

from optuna.study import Study
from optuna.trial import FrozenTrial

from dqn_runner.config.overrides import format_value, quote
from dqn_runner.core import exit_codes
from dqn_runner.core.exceptions import NoRoomError
from dqn_runner.sweep.curves import CurveDrawer
from dqn_runner.sweep.jobs import JobExit, Jobs, print_status
from dqn_runner.sweep.live_table import LiveTable
from dqn_runner.sweep.optuna_parts import pruner_imports
from dqn_runner.sweep.plan import Plan
from dqn_runner.sweep.trial_queue import TrialQueue
from dqn_runner.sweep.trial_record import RunOutcome, RunState, TrialRecord, validation_of


class RunExecutor:
    """Runs the seeds of trials; the outcome of each is what its job has stored in the study."""

    def __init__(
        self,
        study: Study,
        plan: Plan,
        trials: TrialQueue,
        jobs: Jobs,
        curves: CurveDrawer,
        table: LiveTable,
    ) -> None:
        """`jobs` are the processes of the sweep, which `table` shows; `curves` draws their runs."""
        self._study = study
        self._plan = plan
        self._trials = trials
        self._jobs = jobs
        self._curves = curves
        self._table = table

    def run(self, trial: FrozenTrial, index: int, slot: int) -> RunOutcome | None:
        """Run a seed of a trial, again while its process dies; None if the sweep is stopped.

        A run whose outcome is in the study already is not repeated. Raises NoRoomError if the job could not
        store its state; the run has no outcome then.
        """
        restarts = self._plan.settings.max_restarts
        directory = self._directory(trial, index)
        arguments = self._arguments(trial, index, directory)
        reason = ""
        with self._jobs.exclusive(directory):
            for attempt in range(restarts + 1):
                self._jobs.wait_until_free(directory)
                if (outcome := self._stored_outcome(trial.number, index)) is not None:
                    return outcome
                if self._jobs.stopping.is_set():
                    return None
                with self._table.running(trial, index, directory):
                    job = self._jobs.run(arguments, directory, self._environment(slot))
                self._curves.draw(directory)
                if (outcome := self._stored_outcome(trial.number, index)) is not None:
                    return outcome
                _reject_full_disk(job, trial.number, directory)
                if self._jobs.stopping.is_set():
                    return None
                reason = self._reason(job, attempt)
                if job.timed_out or not job.died:
                    break
                print_status(f"trial {trial.number}, seed {self._plan.seed + index}: {job}")
        return RunOutcome(RunState.FAILED, reason, self._plan.seed + index, {}, str(directory))

    def _reason(self, job: JobExit, attempt: int) -> str:
        """Why a run fails whose job ended like this."""
        if job.died and job.timed_out:
            return (
                f"it took longer than hydra.sweeper.job_timeout={self._plan.settings.job_timeout:g} seconds"
            )
        if job.died and attempt:
            return f"it died {attempt + 1} times, the last time: {job}"
        return str(job)

    def _directory(self, trial: FrozenTrial, index: int) -> Path:
        """The directory of the trial if it has a single run, else one directory per seed in it."""
        directory = self._trials.directory(trial.number)
        single = self._plan.settings.seeds == 1 and index == 0
        return directory if single else directory / f"seed_{self._plan.seed + index}"

    def _arguments(self, trial: FrozenTrial, index: int, directory: Path) -> list[str]:
        """The command line of the job that runs a seed of a trial."""
        link: dict[str, str | int] = {
            "storage": quote(self._plan.storage_for_jobs),
            "name": quote(self._plan.name),
            "trial": trial.number,
            "seed_index": index,
        }
        if imports := pruner_imports(self._plan.settings.pruner):
            link["imports"] = format_value(imports)
        study = [f"study.{key}={value}" for key, value in link.items()]
        overrides = [*self._trials.overrides(trial.number), f"seed={self._plan.seed + index}", *study]
        return self._plan.command.job(overrides, directory)

    def _stored_outcome(self, number: int, index: int) -> RunOutcome | None:
        """The outcome that a run has stored in the study."""
        run = TrialRecord(self._trials.get(number)).run(index)
        return run or validation_of(self._study, number, index)

    def _environment(self, slot: int) -> dict[str, str]:
        """Environment variables of the jobs in a slot: one thread, and one of the devices if any are set."""
        variables = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        if gpus := self._plan.settings.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = str(gpus[slot % len(gpus)])
        return variables


def _reject_full_disk(job: JobExit, trial: int, directory: Path) -> None:
    """Raise NoRoomError if the job ended because it could not store its state."""
    if job.status == exit_codes.DISK_FULL:
        why = job.message if job.said_why else f"the disk of {directory} is full"
        raise NoRoomError(f"trial {trial} could not be stored, and the sweep ends: {why}")
