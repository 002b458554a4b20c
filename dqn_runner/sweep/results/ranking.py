"""Which trials of a study are the best, and what is known of their runs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.objectives import aggregate
from dqn_runner.sweep.study import validation_key

Run = Mapping[str, Any]
"""The outcome of a run: its seed, state, metrics and directory."""


def completed(study: Study) -> list[FrozenTrial]:
    """The trials whose runs all finished, in the order of their numbers; not to be changed."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def ranked(study: Study, settings: SweepConfig) -> list[FrozenTrial]:
    """The completed trials within the constraints, best first, and of equal ones the oldest.

    With several objectives those that no other beats (the Pareto front), by the first objective.
    """
    trials = [trial for trial in completed(study) if keeps_to(trial, settings.constraints)]
    gains = {trial.number: _gains(trial, study.directions) for trial in trials}
    if len(study.directions) > 1:
        trials = [t for t in trials if not any(_beats(gain, gains[t.number]) for gain in gains.values())]
    return sorted(trials, key=lambda trial: gains[trial.number], reverse=True)


def keeps_to(trial: FrozenTrial, bounds: Mapping[str, float]) -> bool:
    """Whether the metrics of a completed trial are within their upper bounds."""
    return all(trial.user_attrs["metrics"][name] <= bound for name, bound in bounds.items())


def runs_of(trial: FrozenTrial) -> list[Run]:
    """What the runs of a trial came to, as far as they ended, by seed."""
    attributes: dict[str, Any] = trial.user_attrs
    runs = [run for key, run in attributes.items() if key.startswith("run_")]
    return sorted(runs, key=lambda run: run["seed"])


def validation_of(study: Study, trial: FrozenTrial, settings: SweepConfig) -> list[Run]:
    """What the runs came to that validated a trial on fresh seeds; none if there were not any."""
    attributes = study.user_attrs
    indices = range(settings.seeds, settings.seeds + settings.validate)
    keys = (validation_key(trial.number, index) for index in indices)
    return [attributes[key] for key in keys if key in attributes]


def values_of(runs: Sequence[Run], objective: str) -> list[float]:
    """An objective's value in each of the runs that finished."""
    return [run["metrics"][objective] for run in runs if run["state"] == "finished"]


def summary_of(values: Sequence[float], settings: SweepConfig) -> dict[str, float]:
    """The aggregate of the seeds by its name, and their standard deviation where there are several."""
    found = {settings.aggregate.value: aggregate(values, settings.aggregate)} if values else {}
    return {**found, "std": statistics.stdev(values)} if len(values) > 1 else found


def counts(study: Study) -> dict[str, int]:
    """How many trials are in each state; those that diverged are counted apart from those pruned."""
    trials = study.get_trials(deepcopy=False)
    diverged = [trial for trial in trials if "diverged" in trial.user_attrs]
    of = Counter(trial.state for trial in trials)
    return {
        "complete": of[TrialState.COMPLETE],
        "pruned": of[TrialState.PRUNED] - len(diverged),
        "diverged": len(diverged),
        "failed": of[TrialState.FAIL],
        "running": of[TrialState.RUNNING],
        "waiting": of[TrialState.WAITING],
    }


def env_steps(study: Study) -> int:
    """Env steps of all runs that ended, validation left out."""
    runs = [run for trial in study.get_trials(deepcopy=False) for run in runs_of(trial)]
    return int(sum(run["metrics"].get("env_steps", 0) for run in runs))


def _gains(trial: FrozenTrial, directions: Sequence[StudyDirection]) -> tuple[float, ...]:
    """The values of a trial, turned so that more is better."""
    signs = (-1 if direction is StudyDirection.MINIMIZE else 1 for direction in directions)
    return tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is nowhere worse and somewhere better."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
