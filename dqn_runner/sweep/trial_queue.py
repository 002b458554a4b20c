"""Which trial is next: those that nobody finishes first, then new ones, until the asked number is there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from dqn_runner.sweep.heartbeat import Heartbeat
from dqn_runner.sweep.sampler import grid_is_exhausted
from dqn_runner.sweep.search_space.space import SearchSpace
from dqn_runner.sweep.study import requeue

WORKER = "worker"
OVERRIDES = "overrides"
DIRECTORY = "directory"


class TrialQueue:
    """Hands each slot its next trial; several processes may do so for one study."""

    def __init__(
        self,
        study: Study,
        space: SearchSpace,
        config: DictConfig,
        n_trials: int,
        workers: Heartbeat,
        sweep_dir: Path,
    ) -> None:
        """`config` is what the command line composed, for spaces that look at it."""
        self._study = study
        self._space = space
        self._config = config
        self._n_trials = n_trials
        self._workers = workers
        self._sweep_dir = sweep_dir
        self._guard = threading.RLock()

    def next(self) -> Trial | None:
        """A trial to run; None when there is none at the moment."""
        with self._guard:
            self._requeue_lost()
            trials = self.all()
            waiting = any(trial.state is TrialState.WAITING for trial in trials)
            if not waiting and (len(trials) >= self._n_trials or grid_is_exhausted(self._study)):
                return None
            trial = self._study.ask()
            if trial.number >= self._n_trials:
                trial.set_user_attr("error", "none was asked for: another process was quicker with the last")
                self._study.tell(trial, state=TrialState.FAIL)
                return None
            trial.set_user_attr(WORKER, self._workers.me)
            trial.set_user_attr(OVERRIDES, self._space.suggest(trial, self._config))
            begun = trial.user_attrs.get(DIRECTORY)
            if begun is None or not Path(begun).is_dir():  # the sweep may have been moved
                trial.set_user_attr(DIRECTORY, str(self._sweep_dir.absolute() / str(trial.number)))
            return trial

    def tell(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Finish a trial; False if another process had done so."""
        with self._guard:
            try:
                self._study.tell(number, values, state)
            except (UpdateFinishedTrialError, ValueError):
                if not self.get(number).state.is_finished():
                    raise
                return False
            return True

    def all(self) -> list[FrozenTrial]:
        """Every trial of the study; not to be changed."""
        return self._study.get_trials(deepcopy=False)

    def get(self, number: int) -> FrozenTrial:
        """One trial as the study has it now."""
        return self.all()[number]

    def elsewhere(self) -> list[int]:
        """The trials that other processes run; they come back to the queue if those die."""
        running = (trial for trial in self.all() if trial.state is TrialState.RUNNING)
        return [trial.number for trial in running if trial.user_attrs.get(WORKER) != self._workers.me]

    def _requeue_lost(self) -> None:
        for trial in self.all():
            if trial.state is TrialState.RUNNING and self._is_lost(trial):
                requeue(self._study, trial)

    def _is_lost(self, trial: FrozenTrial) -> bool:
        worker: str | None = trial.user_attrs.get(WORKER)
        return self._workers.abandoned(trial.number) if worker is None else self._workers.is_stale(worker)
