"""The sweeper class of dqn_runner, in the package where Hydra requires it.

Every Hydra program in the environment imports this module. It therefore imports only Hydra, and registers
nothing: `dqn_runner.sweep.hydra_sweeper.register_sweeper` does that, and only `dqn_runner` calls it.
"""

from __future__ import annotations

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """Runs the jobs of a multirun as trials of an Optuna study."""

    def __init__(self, **settings: Any) -> None:
        """`settings` are the fields of `dqn_runner.sweep.config.SweepConfig`."""
        self._settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra passes to a sweeper."""
        self._context = hydra_context
        self._task_function = task_function
        self._config = config

    def sweep(self, arguments: list[str]) -> Any:
        """Run the study; `arguments` are the overrides of the command line."""
        from dqn_runner.sweep.hydra_sweeper import run_sweep

        return run_sweep(self._settings, arguments, self._config, self._context, self._task_function)
