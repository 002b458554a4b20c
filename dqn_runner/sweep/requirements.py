"""What a sweep needs to be installed, checked before its first trial."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig

from dqn_runner.config.error_messages import LAUNCHERS
from dqn_runner.config.schema import to_typed_config
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_module
from dqn_runner.sweep.optuna_parts import is_pruner, is_sampler

SAMPLERS = {"CmaEsSampler": "cmaes", "GPSampler": "scipy", "QMCSampler": "scipy"}
PRUNERS = {"WilcoxonPruner": "scipy"}
"""Modules that classes of Optuna import only when they are first used; the extra `samplers` installs them."""
LOGGERS = {"tensorboard": "tensorboard", "mlflow": "mlflow"}
"""Packages of loggers that an extra of the same name installs."""


def check_sampler_and_pruner(sampler: Mapping[str, Any], pruner: Mapping[str, Any]) -> None:
    """Raise UserError if the sampler or the pruner needs a module that is not installed."""
    for kind, module in SAMPLERS.items():
        if is_sampler(sampler, kind):
            import_module(module, f"the sampler {kind}", "samplers")
    for kind, module in PRUNERS.items():
        if is_pruner(pruner, kind):
            import_module(module, f"the pruner {kind}", "samplers")


def check_launcher(name: str) -> None:
    """Raise UserError if the launcher needs a module that is not installed."""
    for module in LAUNCHERS:
        if name.startswith(module):
            import_module(module, f"hydra/launcher={name}", "launchers")


def check_job(job: DictConfig) -> None:
    """Raise UserError if the environment or a logger of a job needs a module that is not installed.

    Other errors are those of the job: its environment may be made for another machine.
    """
    for name in LOGGERS.keys() & job.logging.keys():
        import_module(LOGGERS[name], f"logging={name}", name)
    missing: UserError | None = None
    with suppress(Exception):
        env = to_typed_config(job).env
        try:
            env.make().close()
        except UserError as error:
            missing = error if _is_missing_module(error) else None
    if missing is not None:
        raise missing


def _is_missing_module(error: BaseException) -> bool:
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, ImportError):
            return True
        link = link.__cause__ or link.__context__
    return False
