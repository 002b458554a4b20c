"""What a user sets under `hydra.sweeper` when the sweeper is `optuna`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.objectives import Aggregate, check_objectives

EVALUATED = ("return", "final_return", "mean_return")
"""The objectives that a run's evaluations, which is what pruners see, are about."""


@dataclass(kw_only=True)
class SweepConfig:
    """How many trials to run, how to choose and stop_callback them, and where to keep the study."""

    sampler: Any = MISSING
    """What proposes the settings of the next trial: tpe, random, grid, cmaes, gp, nsgaii, nsgaiii, qmc, or
    any Optuna sampler by `_target_`. Its seed is that of the run unless given."""
    pruner: Any = MISSING
    """What stops a trial that does badly: none, median, percentile, successive_halving, hyperband, wilcoxon,
    or any Optuna pruner by `_target_`. Steps are counted in evaluations; for wilcoxon in seeds."""
    direction: Any = "maximize"
    """`maximize` or `minimize`; a list of them for several objectives."""
    objective: Any = "return"
    """What is optimised: return, final_return, mean_return, env_steps, seconds, parameters; or a list."""
    constraints: dict[str, float] = field(default_factory=dict[str, float])
    """Upper bounds by the same names, as in `{parameters: 20000}`, which the sampler then keeps to."""
    storage: str | None = None
    """Where the study lives: a journal file, or the URL of a database (sqlite, postgresql, mysql). By
    default `study.journal` in the sweep directory."""
    study_name: str | None = None
    """Its name there; the name of the sweep directory by default."""
    n_trials: int = 20
    """How many trials the study has in the end, those of earlier sessions included."""
    n_jobs: int = 1
    """How many jobs run at once."""
    gpus: list[str] | None = None
    """Devices that the slots of `n_jobs` take in turn, as in `[0,1]`; each job sees only its own."""
    max_failure_rate: float | None = None
    """Stop when more trials failed than this share of `n_trials`. By default only when the first ones all
    fail for the same reason."""
    max_restarts: int = 3
    """How often a run is started again that a signal killed; it goes on from its checkpoint."""
    seeds: int = 1
    """How many runs with different seeds a trial consists of."""
    aggregate: Aggregate = Aggregate.mean
    """How the results of the seeds become one: their `mean`, or their interquartile mean, `iqm`."""
    validate: int = 0
    """At the end, run the best configuration on so many fresh seeds; their aggregate is the result."""
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    """The search space, as far as the command line does not name it."""
    custom_search_space: str | None = None
    """Import path of a function (cfg, trial) that suggests more parameters."""
    dry_run: bool = False
    """Only say how many runs there would be, how long they would take, and what memory and disk."""

    def __post_init__(self) -> None:
        """Refuse what no sweep could do."""
        for name in ("n_trials", "n_jobs", "seeds"):
            if getattr(self, name) < 1:
                raise UserError(f"hydra.sweeper.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("validate", "max_restarts"):
            if getattr(self, name) < 0:
                raise UserError(f"hydra.sweeper.{name} must not be negative, got {getattr(self, name)}")
        if self.max_failure_rate is not None and not 0 <= self.max_failure_rate <= 1:
            raise UserError(f"hydra.sweeper.max_failure_rate is a share, got {self.max_failure_rate}")
        check_objectives(self.objectives, self.directions)
        check_objectives(list(self.constraints), ["minimize"] * len(self.constraints))
        if len(self.objectives) > 1 and (self.prunes or self.validate):
            raise UserError(
                "with several objectives no trial is better than all others: set hydra.sweeper.pruner=none "
                "and hydra.sweeper.validate=0"
            )
        if self.prunes and self.objectives[0] not in EVALUATED:
            raise UserError(
                f"a pruner judges evaluations, but the objective is {self.objectives[0]}; choose "
                f"hydra.sweeper.pruner=none or an objective among {', '.join(EVALUATED)}"
            )

    @property
    def objectives(self) -> list[str]:
        """The names of the objectives."""
        return _listed(self.objective)

    @property
    def directions(self) -> list[str]:
        """One for each objective."""
        return [str(getattr(d, "name", d)).lower() for d in _listed(self.direction)]

    @property
    def prunes(self) -> bool:
        """Whether trials may be stopped early."""
        return not str(self.pruner["_target_"]).endswith(".NopPruner")

    @property
    def prunes_between_seeds(self) -> bool:
        """Whether the pruner compares trials seed by seed, instead of evaluation by evaluation."""
        return str(self.pruner["_target_"]).endswith(".WilcoxonPruner")

    def check_budget(self, budget: int | None) -> None:
        """Raise where the evaluations of several seeds cannot be counted through; `budget` is of one run."""
        if self.seeds > 1 and self.prunes and not self.prunes_between_seeds and budget is None:
            raise UserError(
                "a pruner compares the evaluations of several seeds at equal points of their budgets; set "
                "trainer.max_steps (or trainer.max_episodes with trainer.frequency_unit=episodes)"
            )


def _listed(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [value]  # pyright: ignore[reportUnknownVariableType]
