"""The sweeper `hydra/sweeper=optuna`, as Hydra finds it; the work is done in dqn_runner.sweep."""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from dqn_runner.core.registry import plugin_schema, store_plugin
from dqn_runner.sweep.config import SweepConfig

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
"""Every further argument of the class can be given, as in `hydra.sweeper.pruner.interval_steps=2`."""
DEFAULTS = {"sampler": "tpe", "pruner": "none"}
"""The choices where the user makes none."""


class OptunaSweeper(Sweeper):
    """Runs the jobs of a multirun as trials of an Optuna study."""

    def __init__(self, **settings: Any) -> None:
        """`settings` are the fields of SweepConfig."""
        self._settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra composed."""
        self._context = hydra_context
        self._task_function = task_function
        self._config = config

    def sweep(self, arguments: list[str]) -> Any:
        """Run the study to its end; `arguments` are the overrides of the command line.

        Where they belong to a job of a sweep, only that is run, by Hydra's launcher.
        """
        if any(argument.startswith("study.trial=") for argument in arguments):
            return self._launch(arguments)
        from dqn_runner.sweep.plan import make_plan

        settings = SweepConfig(**{key: _plain(value) for key, value in self._settings.items()})
        plan = make_plan(settings, self._config, arguments, self._context)
        if settings.dry_run:
            from dqn_runner.sweep.dry_run import estimate

            print(estimate(plan))
        else:
            from dqn_runner.sweep.runner import SweepRunner

            SweepRunner(plan).run()
        return None

    def _launch(self, arguments: list[str]) -> Any:
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=self._task_function, config=self._config
        )
        trial: int = self._config.study.trial
        (result,) = launcher.launch([arguments], initial_job_idx=trial)
        return result.return_value


def _plain(value: Any) -> Any:
    return OmegaConf.to_object(value) if OmegaConf.is_config(value) else value


SCHEMA = plugin_schema(
    SweepConfig, f"{OptunaSweeper.__module__}.{OptunaSweeper.__qualname__}", DEFAULTS, SweepConfig.__module__
)


def _register() -> None:
    store = ConfigStore.instance()
    store_plugin("hydra/sweeper", "optuna", SCHEMA)
    for group, choices in {"sampler": SAMPLERS, "pruner": PRUNERS}.items():
        for name, node in choices.items():
            free = OmegaConf.create(node, flags={"struct": False})
            store.store(group=f"hydra/sweeper/{group}", name=name, node=free, provider="dqn_runner")


_register()
