"""Ranks the trials of a study, and summarises their runs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.objectives import aggregate
from dqn_runner.sweep.trial_record import RunOutcome, RunState, TrialRecord, validation_of


def completed(study: Study) -> list[FrozenTrial]:
    """The trials whose runs all finished, in the order of their numbers; not to be modified."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in complete if TrialRecord(trial).has_run]


def ranked(study: Study, settings: SweepConfig) -> list[FrozenTrial]:
    """The completed trials within the constraints, best first; of equal trials, the oldest first.

    With several objectives, the trials that no other dominates (the Pareto front), by the first objective.
    """
    trials = [trial for trial in completed(study) if is_feasible(trial, settings.constraints)]
    gains = {trial.number: _gains(trial, study.directions) for trial in trials}
    if len(study.directions) > 1:
        trials = [t for t in trials if not any(_dominates(gain, gains[t.number]) for gain in gains.values())]
    return sorted(trials, key=lambda trial: gains[trial.number], reverse=True)


def is_feasible(trial: FrozenTrial, bounds: Mapping[str, float]) -> bool:
    """Whether the metrics of a completed trial are within their upper bounds."""
    return all(TrialRecord(trial).metrics[name] <= bound for name, bound in bounds.items())


def validation_runs(study: Study, trial: FrozenTrial, settings: SweepConfig) -> list[RunOutcome]:
    """The validation runs of a trial that have ended, by seed."""
    indices = range(settings.seeds, settings.seeds + settings.validate)
    runs = (validation_of(study, trial.number, index) for index in indices)
    return [run for run in runs if run is not None]


def values_of(runs: Sequence[RunOutcome], objective: str) -> list[float]:
    """The value of an objective in each of the runs that finished."""
    return [run.metrics[objective] for run in runs if run.state is RunState.FINISHED]


def summary_of(values: Sequence[float], settings: SweepConfig) -> dict[str, float]:
    """The aggregate of the values under its name, and their standard deviation if there are several."""
    found = {settings.aggregate.value: aggregate(values, settings.aggregate)} if values else {}
    return {**found, "std": statistics.stdev(values)} if len(values) > 1 else found


def counts(study: Study, n_trials: int) -> dict[str, int]:
    """The number of trials in each state; diverged trials are not counted as pruned.

    A trial that waits beyond the first `n_trials` is not counted, because it is not run (see TrialQueue).
    """
    waits = TrialState.WAITING
    trials = [t for t in study.get_trials(deepcopy=False) if t.number < n_trials or t.state is not waits]
    diverged = [t for t in trials if TrialRecord(t).reason(RunState.DIVERGED) is not None]
    number = Counter(trial.state for trial in trials)
    return {
        "complete": number[TrialState.COMPLETE],
        "pruned": number[TrialState.PRUNED] - len(diverged),
        "diverged": len(diverged),
        "failed": number[TrialState.FAIL],
        "running": number[TrialState.RUNNING],
        "waiting": number[waits],
    }


def env_steps(study: Study) -> int:
    """Env steps of all runs that have ended, without those of the validation."""
    runs = [run for trial in study.get_trials(deepcopy=False) for run in TrialRecord(trial).runs]
    return int(sum(run.metrics.get("env_steps", 0) for run in runs))


def _gains(trial: FrozenTrial, directions: Sequence[StudyDirection]) -> tuple[float, ...]:
    """The values of a trial, with signs such that larger is better."""
    signs = (-1 if direction is StudyDirection.MINIMIZE else 1 for direction in directions)
    return tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is better in at least one objective and not worse in any."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
