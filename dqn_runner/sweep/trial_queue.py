"""The next trial to run: orphaned ones first, then new ones up to n_trials."""

from __future__ import annotations

import copy
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from omegaconf import DictConfig
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from dqn_runner.core.exceptions import UserError
from dqn_runner.io.lock import LockUnsupportedError, exclusive_lock
from dqn_runner.sweep.grid import untried_points
from dqn_runner.sweep.heartbeat import Heartbeat
from dqn_runner.sweep.sampler import proposing
from dqn_runner.sweep.search_space.custom import ENQUEUED, enqueued_values
from dqn_runner.sweep.search_space.space import SearchSpace
from dqn_runner.sweep.study import requeue
from dqn_runner.sweep.trial_record import (
    TrialRecord,
    store_claim,
    store_directory,
    store_overrides,
)

LOCK = ".queue.lock"
"""The lock file, in the sweep directory, of the process that selects its next trial."""


class TrialQueue:
    """Gives each slot its next trial; several processes may use the same study.

    They select their trials one after the other, so that there are never more than `n_trials`. Processes with
    different sweep directories, or on a file system without locks, may create a trial too many. It waits in
    the study, and is the next one if `n_trials` is increased.
    """

    def __init__(
        self,
        study: Study,
        space: SearchSpace,
        config: DictConfig,
        n_trials: int,
        heartbeat: Heartbeat,
        sweep_dir: Path,
    ) -> None:
        """`config` is the configuration of the sweep, which a custom search space may read."""
        self._study = study
        self._space = space
        self._config = config
        self._n_trials = n_trials
        self._heartbeat = heartbeat
        self._sweep_dir = sweep_dir
        self._lock = threading.RLock()
        self._checked: set[int] = set()

    def next(self) -> Trial | None:
        """A trial to run; None if there is none at the moment."""
        with self._alone():
            self._requeue_orphans()
            trials = self.all()
            waiting = any(t.state is TrialState.WAITING and t.number < self._n_trials for t in trials)
            if not waiting and (len(trials) >= self._n_trials or untried_points(self._study) == 0):
                return None
            with proposing():
                trial = self._study.ask()
            if trial.number >= self._n_trials:
                requeue(self._study, trial)
                return None
            store_claim(trial, self._heartbeat.worker)
            store_overrides(trial, self._suggest(trial))
            directory = self.directory(trial.number)
            if TrialRecord(trial).directory != str(directory):  # the sweep may have been moved
                store_directory(trial, directory)
            return trial

    def directory(self, number: int) -> Path:
        """The directory of the runs of a trial, whatever the study says."""
        return self._sweep_dir.absolute() / str(number)

    def overrides(self, number: int) -> list[str]:
        """The overrides of a trial, from its parameters and the search space.

        The study can come from someone else, or have been edited: raises UserError if it contains others.
        """
        trial = self.get(number)
        overrides, stored = self._suggest(copy.deepcopy(trial)), TrialRecord(trial).overrides
        if overrides != stored:
            raise _not_of_this_sweep(number, f"its overrides are {stored}, its parameters mean {overrides}")
        return overrides

    def check(self) -> None:
        """Reject a study with a finished trial that this search space cannot have, each once."""
        for trial in self.all():
            has_run = trial.state.is_finished() and TrialRecord(trial).has_overrides
            if has_run and trial.number not in self._checked:
                self.overrides(trial.number)
                self._checked.add(trial.number)

    def _suggest(self, trial: Trial | FrozenTrial) -> list[str]:
        """The overrides of a trial; the sampler proposes the values of a new one."""
        stored = self.get(trial.number)
        if isinstance(trial, Trial) and not (stored.params or stored.system_attrs.get(ENQUEUED)):
            with proposing():
                return self._space.suggest(trial, self._config)
        try:
            return self._space.suggest(trial, self._config, enqueued_values(stored))
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # of a value of the study
            raise _not_of_this_sweep(trial.number, str(error).rstrip(".")) from error

    def tell(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Finish a trial; False if another process has finished it already."""
        with self._lock:
            try:
                self._study.tell(number, values, state)
            except (UpdateFinishedTrialError, ValueError):
                if not self.get(number).state.is_finished():
                    raise
                return False
            return True

    def all(self) -> list[FrozenTrial]:
        """Every trial of the study; not to be modified."""
        return self._study.get_trials(deepcopy=False)

    def get(self, number: int) -> FrozenTrial:
        """The current state of a trial."""
        return self.all()[number]

    def elsewhere(self) -> list[int]:
        """The trials that other processes run; they are queued again if those processes die."""
        running = (trial for trial in self.all() if trial.state is TrialState.RUNNING)
        return [trial.number for trial in running if TrialRecord(trial).worker != self._heartbeat.worker]

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Within the block, no other thread and no other process selects a trial."""
        file = self._sweep_dir / LOCK
        file.touch()
        with self._lock, ExitStack() as stack:
            with suppress(LockUnsupportedError):
                stack.enter_context(exclusive_lock(file))
            yield

    def _requeue_orphans(self) -> None:
        for trial in self.all():
            if trial.state is TrialState.RUNNING and self._is_orphan(trial):
                requeue(self._study, trial)

    def _is_orphan(self, trial: FrozenTrial) -> bool:
        worker = TrialRecord(trial).worker
        if worker is None:
            return self._heartbeat.is_unclaimed(trial.number)
        return self._heartbeat.is_stale(worker)


def _not_of_this_sweep(number: int, why: str) -> UserError:
    return UserError(
        f"trial {number} of the study is not one of this sweep: {why}. The study was not written by this "
        "command, or was altered; choose another hydra.sweep.dir or hydra.sweeper.study_name"
    )
