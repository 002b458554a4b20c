"""The Hydra sweeper `optuna` of this program: its options, and what it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from dqn_runner.config.error_messages import explain, unknown_key
from dqn_runner.core.exceptions import JobLostError, UserError
from dqn_runner.core.registry import PROVIDER, open_mappings
from dqn_runner.run.contents import reject_run
from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.curves import WritePage, no_page

SWEEPER_CLASS = "hydra_plugins.dqn_runner_sweeper.sweeper.OptunaSweeper"
"""Hydra accepts only sweepers of the namespace package `hydra_plugins`."""

SAMPLERS: dict[str, dict[str, Any]] = {
    "tpe": {"_target_": "optuna.samplers.TPESampler", "seed": None, "multivariate": True, "group": True},
    "random": {"_target_": "optuna.samplers.RandomSampler", "seed": None},
    "grid": {"_target_": "optuna.samplers.GridSampler", "seed": None},
    "cmaes": {"_target_": "optuna.samplers.CmaEsSampler", "seed": None, "warn_independent_sampling": False},
    "gp": {"_target_": "optuna.samplers.GPSampler", "seed": None, "warn_independent_sampling": False},
    "nsgaii": {"_target_": "optuna.samplers.NSGAIISampler", "seed": None, "population_size": 50},
    "nsgaiii": {"_target_": "optuna.samplers.NSGAIIISampler", "seed": None, "population_size": 50},
    "qmc": {
        "_target_": "optuna.samplers.QMCSampler",
        "seed": None,
        "scramble": True,
        "warn_independent_sampling": False,
    },
}
PRUNERS: dict[str, dict[str, Any]] = {
    "none": {"_target_": "optuna.pruners.NopPruner"},
    "median": {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 5, "n_warmup_steps": 0},
    "percentile": {
        "_target_": "optuna.pruners.PercentilePruner",
        "percentile": 25.0,
        "n_startup_trials": 5,
        "n_warmup_steps": 0,
    },
    "successive_halving": {
        "_target_": "optuna.pruners.SuccessiveHalvingPruner",
        "min_resource": "auto",
        "reduction_factor": 4,
    },
    "hyperband": {
        "_target_": "optuna.pruners.HyperbandPruner",
        "min_resource": 1,
        "max_resource": "auto",
        "reduction_factor": 3,
    },
    "wilcoxon": {"_target_": "optuna.pruners.WilcoxonPruner", "p_threshold": 0.1, "n_startup_steps": 2},
}
"""Every other argument of the class can be given, as in `hydra.sweeper.pruner.interval_steps=2`."""
DEFAULTS = {"sampler": "tpe", "pruner": "none"}
"""The options if the user chooses none."""


@dataclass(kw_only=True)
class OptunaSweeperConfig(SweepConfig):
    """The option `hydra/sweeper=optuna`: the settings, with what Hydra needs to build the sweeper.

    A composed configuration refers to this class, and launchers pickle it by its module and name.
    """

    _target_: str = SWEEPER_CLASS
    _recursive_: bool = False
    defaults: list[Any] = field(
        default_factory=lambda: [*({part: option} for part, option in DEFAULTS.items()), "_self_"]
    )


_pages: list[WritePage] = []
"""Who writes the pages of sweeps; Hydra makes the sweeper, so that it cannot be an argument of it."""


def register_sweeper(write_page: WritePage = no_page) -> None:
    """Make `hydra/sweeper=optuna` this program's sweeper, in this process only.

    `write_page` writes the page of a sweep, whenever a trial has ended.

    The plugin hydra-optuna-sweeper registers options of the same names when Hydra discovers it. Discovery
    therefore runs first, and then all its options are replaced. Other programs in the same environment do not
    call this function, and keep the sweeper of that plugin.
    """
    _pages[:] = [write_page]
    Plugins.instance()
    store = ConfigStore.instance()
    sweepers = store.repo.get("hydra", {}).get("sweeper", {})
    for group, options in {"sampler": SAMPLERS, "pruner": PRUNERS}.items():
        sweepers.pop(group, None)
        for name, node in options.items():
            extensible = OmegaConf.create(node, flags={"struct": False})
            store.store(group=f"hydra/sweeper/{group}", name=name, node=extensible, provider=PROVIDER)
    sweeper = open_mappings(OptunaSweeperConfig)
    store.store(group="hydra/sweeper", name="optuna", node=sweeper, provider=PROVIDER)


def run_sweep(
    settings: Mapping[str, Any],
    arguments: Sequence[str],
    config: DictConfig,
    context: HydraContext,
    task_function: TaskFunction,
) -> Any:
    """Run a sweep, or with `study.trial=N` one job of it by Hydra's launcher; returns the result of a job.

    `settings` are the fields of SweepConfig, and `arguments` the overrides of the command line.
    """
    if any(argument.startswith("study.trial=") for argument in arguments):
        return _launch_job(arguments, config, context, task_function)
    from dqn_runner.sweep import requirements
    from dqn_runner.sweep.plan import make_plan

    known = {setting.name: None for setting in fields(SweepConfig)}
    for key in settings.keys() - known.keys():  # added with a plus sign
        raise UserError(unknown_key(f"hydra.sweeper.{key}", OmegaConf.create({"hydra": {"sweeper": known}})))
    sweep = SweepConfig(**{key: _to_object(value) for key, value in settings.items()})
    requirements.check_sampler_and_pruner(sweep.sampler, sweep.pruner)
    plan = make_plan(sweep, config, arguments, context)
    requirements.check_launcher(plan.command.launcher)
    reject_run(plan.directory)
    if not plan.directory.exists():  # a sweep that is continued has run jobs
        requirements.check_job(plan.job)
    if sweep.dry_run:
        from dqn_runner.sweep.dry_run import estimate

        print(estimate(plan))
    else:
        from dqn_runner.sweep.runner import SweepRunner

        SweepRunner(plan, _pages[0]).run()
    return None


def _launch_job(
    arguments: Sequence[str], config: DictConfig, context: HydraContext, task_function: TaskFunction
) -> Any:
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=task_function, config=config
    )
    trial: int = config.study.trial
    try:
        (result,) = launcher.launch([arguments], initial_job_idx=trial)
    except Exception as error:  # an error of the job itself is raised by `return_value`
        if explain(error) is not None:
            raise
        raise JobLostError(f"the launcher lost the job: {type(error).__name__}: {error}") from error
    return result.return_value


def _to_object(value: Any) -> Any:
    return OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
