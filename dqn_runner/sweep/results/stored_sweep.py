"""A sweep as its study tells it, for reports: trials, results, and what pruning saved."""

from __future__ import annotations

import math
import statistics
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.config import Session, SweepConfig
from dqn_runner.sweep.jobs import Command
from dqn_runner.sweep.objectives import Aggregate
from dqn_runner.sweep.results.ranking import ranked, validation_runs
from dqn_runner.sweep.results.summary import rerun_start
from dqn_runner.sweep.trial_record import (
    RunOutcome,
    RunState,
    TrialRecord,
    definition_of,
    pruner_of,
    session_of,
)

FEWEST_FOR_IMPORTANCE = 4
"""Completed trials that importances need to be more than noise."""


@dataclass(frozen=True)
class StoredSweep:
    """The study of a sweep, with the settings that it stores."""

    study: Study
    settings: SweepConfig
    command: Command
    first_seed: int

    @cached_property
    def trials(self) -> list[FrozenTrial]:
        """The trials that are or were run, by number."""
        waits = TrialState.WAITING
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if t.state is not waits or t.number < self.settings.n_trials]

    @cached_property
    def best(self) -> list[FrozenTrial]:
        """The completed trials, best first; with several objectives the Pareto front."""
        return ranked(self.study, self.settings)

    def validation(self) -> list[RunOutcome]:
        """The runs of the best trial on fresh seeds."""
        if not self.best or len(self.settings.objectives) > 1:
            return []
        return validation_runs(self.study, self.best[0], self.settings)

    @cached_property
    def parameters(self) -> dict[str, BaseDistribution]:
        """The parameters of all trials, with the last distribution of each."""
        return {name: d for trial in self.trials for name, d in trial.distributions.items()}

    @cached_property
    def command_start(self) -> list[str]:
        """What the commands that run trials again have in common."""
        return rerun_start(self.command)


def stored_sweep(study: Study) -> StoredSweep:
    """The sweep of a study; raises UserError for a study of an earlier version, or of another program."""
    definition, session = definition_of(study), session_of(study)
    if definition is None or session is None:
        raise UserError(
            f"the study {study.study_name} lacks what a report needs; repeat the command of the sweep, which "
            "stores it"
        )
    return StoredSweep(
        study, _settings(study, definition, session), _command(definition, session), definition["seed"]
    )


def _settings(study: Study, definition: dict[str, object], session: Session) -> SweepConfig:
    return SweepConfig(
        sampler={},
        pruner=pruner_of(study),
        objective=definition["objective"],
        direction=definition["direction"],
        seeds=definition["seeds"],  # pyright: ignore[reportArgumentType]
        aggregate=Aggregate(definition["aggregate"]),
        n_trials=session["n_trials"],
        validate=session["validate"],
        constraints=session["constraints"],
    )


def _command(definition: dict[str, object], session: Session) -> Command:
    fixed: Sequence[str] = definition["overrides"]  # pyright: ignore[reportAssignmentType]
    return Command(tuple(session["flags"]), tuple(fixed), tuple(session["search_path"]), "basic")


def state_of(trial: FrozenTrial) -> str:
    """How a trial ended, or that it did not."""
    record = TrialRecord(trial)
    if record.reason(RunState.DIVERGED) is not None:
        return "diverged"
    return "failed" if trial.state is TrialState.FAIL else trial.state.name.lower()


def reason_of(trial: FrozenTrial) -> str:
    """Why a trial did not complete; empty if it did."""
    record = TrialRecord(trial)
    reasons = (record.reason(state) for state in (RunState.FAILED, RunState.DIVERGED, RunState.PRUNED))
    return next((reason for reason in reasons if reason), "")


def failures(sweep: StoredSweep) -> list[tuple[str, list[FrozenTrial]]]:
    """The reasons of failed and diverged trials, without their directories, the most frequent first."""
    groups: dict[str, list[FrozenTrial]] = defaultdict(list)
    for trial in sweep.trials:
        if state_of(trial) in ("failed", "diverged"):
            directory = TrialRecord(trial).directory
            reason = reason_of(trial) or "no reason was stored"
            groups[reason.replace(directory, "…") if directory else reason].append(trial)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


@dataclass(frozen=True)
class Savings:
    """What pruning saved, if pruned trials would have taken as long as completed ones."""

    trials: int
    env_steps: float
    share: float
    """Of the env steps that the trials would have taken without it."""


def savings(sweep: StoredSweep) -> Savings | None:
    """What pruning saved so far; None without a pruned and a completed trial."""
    complete = [_env_steps(t) for t in sweep.trials if t.state is TrialState.COMPLETE]
    pruned = [_env_steps(t) for t in sweep.trials if state_of(t) == "pruned"]
    if not complete or not pruned:
        return None
    whole = statistics.median(complete)
    saved = sum(max(0.0, whole - steps) for steps in pruned)
    spent = sum(complete) + sum(pruned)
    return Savings(len(pruned), saved, saved / (saved + spent) if saved + spent else 0.0)


def _env_steps(trial: FrozenTrial) -> float:
    return sum(run.metrics.get("env_steps", 0.0) for run in TrialRecord(trial).runs)


def importances(sweep: StoredSweep) -> dict[str, float]:
    """How much each parameter matters for the first objective, by PED-ANOVA (Watanabe et al. 2023).

    It needs no further library, unlike fANOVA. Empty with too few trials, or if no parameter varies in all.
    """
    values = [t.values[0] for t in sweep.trials if t.state is TrialState.COMPLETE]
    if len(values) < FEWEST_FOR_IMPORTANCE or len(set(values)) < 2 or not all(map(math.isfinite, values)):
        return {}
    maximizes = sweep.settings.directions[0] == "maximize"
    quantile = min(0.5, max(0.1, 5 / len(values)))  # five good trials, if there are that many
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
        try:
            return optuna.importance.get_param_importances(
                sweep.study,
                evaluator=evaluator,
                target=lambda trial: -trial.values[0] if maximizes else trial.values[0],
            )
        except (ValueError, RuntimeError, ZeroDivisionError):  # no common parameter, or equal values
            return {}
