"""Reports a job to the study of its sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import UpdateFinishedTrialError

from dqn_runner.core.log import log
from dqn_runner.sweep.objectives import Aggregate, aggregate
from dqn_runner.sweep.optuna_parts import is_pruner
from dqn_runner.sweep.study import load_study, running_trial
from dqn_runner.sweep.trial_record import (
    RunOutcome,
    RunState,
    TrialRecord,
    definition_of,
    pruner_of,
    store_reason,
    store_run,
    store_traceback,
    store_validation,
)

if TYPE_CHECKING:
    from dqn_runner.training.callbacks import Run
    from dqn_runner.training.evaluator import Evaluation


@dataclass(frozen=True)
class JobLink:
    """Which run of which sweep a job is."""

    storage: str
    study: str
    trial: int
    seed_index: int
    """Index of the seed within the trial; later indices are validation runs."""
    imports: tuple[str, ...] = ()
    """What the pruner may import beside Optuna."""


class Reporter:
    """Reports each evaluation of a job and its outcome to the study; returns the decisions of the pruner."""

    def __init__(self, link: JobLink, eval_frequency: int, budget: int | None) -> None:
        """Open the study. `eval_frequency` and `budget` are in the unit of the run, steps or episodes."""
        self._link = link
        self._eval_frequency = eval_frequency
        self._study = load_study(link.storage, link.study, link.imports)
        definition = definition_of(self._study)
        assert definition is not None, "the sweep stores it before it starts a job"
        self._definition: dict[str, Any] = definition
        self._trial = running_trial(self._study, link.trial)
        self._validates = link.seed_index >= definition["seeds"]
        self._reports = len(definition["objective"]) == 1 and not is_pruner(
            pruner_of(self._study), "WilcoxonPruner"
        )
        self._offset = link.seed_index * (budget // eval_frequency + 1) if budget else 0

    def on_evaluation(self, run: Run, evaluation: Evaluation) -> None:
        """Report an evaluation of a running run, and stop the run if the pruner decides that."""
        if run.stop_reason is None and (reason := self(run.position, evaluation.mean)) is not None:
            run.request_stop(reason, pruned=True)

    def __call__(self, position: int, mean: float) -> str | None:
        """Report the mean return of an evaluation at this point of the run; the reason if it is pruned.

        A resumed run repeats evaluations that it has reported before. The stored answers of the pruner are
        used for these: a pruner decides by the last report of a trial, and some answer only once.
        """
        if self._validates or not self._reports:
            return None
        step = self._offset + position // self._eval_frequency
        trial = self._study.get_trials(deepcopy=False)[self._trial.number]
        reported = trial.intermediate_values
        pruned = TrialRecord(trial).reason(RunState.PRUNED)
        if step not in reported:
            values = [*self._earlier_seeds(), mean]
            self._trial.report(aggregate(values, Aggregate(self._definition["aggregate"])), step)
        elif step < max(reported):
            return None
        elif pruned is not None:
            return pruned
        if not self._trial.should_prune():
            return None
        reason = f"pruned by the sweep's {type(self._study.pruner).__name__} after evaluation {step}"
        store_reason(self._trial, RunState.PRUNED, reason)
        return reason

    def finish(
        self, state: RunState, reason: str, seed: int, metrics: Mapping[str, float], directory: Path
    ) -> None:
        """Store the outcome of the run."""
        outcome = RunOutcome(state, reason, seed, dict(metrics), str(directory.absolute()))
        try:
            if self._validates:
                store_validation(self._study, self._link.trial, self._link.seed_index, outcome)
            else:
                store_run(self._trial, self._link.seed_index, outcome)
        except UpdateFinishedTrialError:
            log.warning("trial %s has been finished by another process", self._link.trial)

    def failed(self, traceback: str) -> None:
        """Store the traceback of an error; if that fails it is logged, so that the error is not hidden."""
        try:
            store_traceback(self._trial, traceback)
        except Exception:
            log.exception("the traceback could not be stored in the study")

    def _earlier_seeds(self) -> list[float]:
        """The objective of the seeds of the trial that have finished before this one."""
        record, objective = TrialRecord(self._trial), self._definition["objective"][0]
        values: list[float] = []
        for index in range(self._link.seed_index):
            run = record.run(index)
            assert run is not None, "the sweep runs the seeds of a trial in order"
            values.append(run.metrics[objective])
        return values
