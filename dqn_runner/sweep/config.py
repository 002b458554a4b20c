"""The settings under `hydra.sweeper` of the sweeper `optuna`."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, TypedDict

from omegaconf import MISSING

from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.objectives import Aggregate, check_objectives
from dqn_runner.sweep.optuna_parts import is_pruner
from dqn_runner.training.config import MOST_SECONDS

EVALUATED = ("return", "final_return", "mean_return")
"""The objectives that come from the evaluations of a run, which pruners compare."""

NUMBERING = (
    "trainer.max_steps",
    "trainer.max_episodes",
    "trainer.eval_frequency",
    "trainer.frequency_unit",
    "trainer",
    "experiment",
)
"""Settings that decide how many evaluations a run has."""


class Session(TypedDict):
    """What the last session of a sweep decided."""

    n_trials: int
    validate: int
    constraints: dict[str, float]
    flags: list[str]
    """--config-name and --config-dir of its command."""
    search_path: list[str]
    """Its overrides of hydra.searchpath."""


@dataclass(kw_only=True)
class SweepConfig:
    """How many trials to run, how to choose and prune them, and where to keep the study."""

    sampler: Any = MISSING
    """The sampler, which proposes the settings of the next trial: tpe, random, grid, cmaes, gp, nsgaii,
    nsgaiii, qmc, or any Optuna sampler by `_target_`. Its seed is that of the run unless given."""
    pruner: Any = MISSING
    """The pruner, which stops trials with poor results: none, median, percentile, successive_halving,
    hyperband, wilcoxon, or any Optuna pruner by `_target_`. Steps are evaluations; for wilcoxon, seeds."""
    direction: Any = "maximize"
    """`maximize` or `minimize`; a list of them for several objectives."""
    objective: Any = "return"
    """The objective: return, final_return, mean_return, env_steps, seconds, parameters; or a list."""
    constraints: dict[str, float] = field(default_factory=dict[str, float])
    """Upper bounds by the same names, as in `{parameters: 20000}`, for samplers that support constraints."""
    storage: str | None = None
    """Where the study is stored: a journal file, or the URL of a database (sqlite, postgresql, mysql). By
    default `study.journal` in the sweep directory."""
    study_name: str | None = None
    """The name of the study in its storage; by default the name of the sweep directory."""
    n_trials: int = 20
    """The number of trials of the study, including those of earlier sessions."""
    n_jobs: int = 1
    """The number of jobs that run at the same time."""
    gpus: list[str] | None = None
    """Devices that the slots of `n_jobs` use in turn, as in `[0,1]`; each job sees only its own."""
    max_failure_rate: float | None = None
    """Stop if more trials fail than this share of `n_trials`. By default only if the first ones all
    fail for the same reason."""
    max_restarts: int = 3
    """How often a run is started again whose process ends without reporting why (killed, out of memory,
    machine lost); it resumes from its checkpoint. A run that reports an error fails at once."""
    job_timeout: float | None = None
    """Time limit of a job in seconds, from the start of its process; null for no limit. The job is then
    asked to stop, is killed 30 seconds later, and its trial fails."""
    seeds: int = 1
    """The number of runs of a trial, each with another seed."""
    aggregate: Aggregate = Aggregate.mean
    """How the results of the seeds are combined: their `mean`, or their interquartile mean, `iqm`."""
    validate: int = 0
    """After the trials, run the best configuration on this many fresh seeds and report their aggregate."""
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    """The search space; parameters on the command line replace those with the same key."""
    custom_search_space: str | None = None
    """Import path of a function (cfg, trial) that suggests more parameters."""
    dry_run: bool = False
    """Only print the number of runs, and an estimate of their time, memory and disk space."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        for name in ("n_trials", "n_jobs", "seeds"):
            if getattr(self, name) < 1:
                raise UserError(f"hydra.sweeper.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("validate", "max_restarts"):
            if getattr(self, name) < 0:
                raise UserError(f"hydra.sweeper.{name} must not be negative, got {getattr(self, name)}")
        if self.job_timeout is not None and not 0 < self.job_timeout <= MOST_SECONDS:
            raise UserError(
                "hydra.sweeper.job_timeout must be a positive number of seconds, at most "
                f"{MOST_SECONDS:g}, got {self.job_timeout}"
            )
        if self.max_failure_rate is not None and not 0 <= self.max_failure_rate <= 1:
            raise UserError(
                f"hydra.sweeper.max_failure_rate must be between 0 and 1, got {self.max_failure_rate}"
            )
        for name in ("storage", "study_name"):
            if getattr(self, name) == "":
                raise UserError(
                    f"hydra.sweeper.{name} is empty; give it a value, set the variable that it names, or "
                    "leave it out"
                )
        for name, bound in self.constraints.items():
            if math.isnan(bound):
                raise UserError(f"hydra.sweeper.constraints: the bound of {name} must be a number, got nan")
        check_objectives(self.objectives, self.directions)
        check_objectives(list(self.constraints), ["minimize"] * len(self.constraints))
        if len(self.objectives) > 1 and (self.prunes or self.validate):
            raise UserError(
                "a sweep with several objectives has no single best trial: set hydra.sweeper.pruner=none "
                "and hydra.sweeper.validate=0"
            )
        if self.prunes and self.objectives[0] not in EVALUATED:
            raise UserError(
                f"a pruner compares evaluations, but the objective is {self.objectives[0]}; choose "
                f"hydra.sweeper.pruner=none or an objective among {', '.join(EVALUATED)}"
            )

    @property
    def objectives(self) -> list[str]:
        """The names of the objectives."""
        return _as_list(self.objective)

    @property
    def directions(self) -> list[str]:
        """The direction of each objective."""
        return [str(getattr(d, "name", d)).lower() for d in _as_list(self.direction)]

    @property
    def prunes(self) -> bool:
        """Whether trials may be stopped early."""
        return not is_pruner(self.pruner, "NopPruner")

    @property
    def prunes_between_seeds(self) -> bool:
        """Whether the pruner compares trials seed by seed, instead of evaluation by evaluation."""
        return is_pruner(self.pruner, "WilcoxonPruner")

    def check_budget(self, budget: int | None, searched: Collection[str]) -> None:
        """Raise UserError if a pruner cannot compare the evaluations of several seeds.

        That needs a `budget` and the same number of evaluations in all trials; `searched` are the keys that
        differ between them.
        """
        if self.seeds == 1 or not self.prunes or self.prunes_between_seeds:
            return
        if budget is None:
            raise UserError(
                "a pruner compares the evaluations of several seeds at equal points of their budgets; set "
                "trainer.max_steps (or trainer.max_episodes with trainer.frequency_unit=episodes)"
            )
        if varied := [key for key in NUMBERING if key in searched]:
            raise UserError(
                f"with hydra.sweeper.seeds={self.seeds} a pruner needs as many evaluations in each trial, "
                f"but {', '.join(varied)} is searched; fix it, or choose hydra.sweeper.pruner=none"
            )


def _as_list(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [value]  # pyright: ignore[reportUnknownVariableType]
