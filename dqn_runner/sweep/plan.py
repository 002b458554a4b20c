"""What a sweep is, before anything runs: settings, search space, commands, places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from dqn_runner.config.schema import CONF, to_plain_config
from dqn_runner.core.exceptions import UserError
from dqn_runner.run.compatibility import SESSION_KEYS, leaves
from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.jobs import Command
from dqn_runner.sweep.search_space.space import CHOSEN_BY, SearchSpace, search_space
from dqn_runner.sweep.study import CONFIGURATION, default_storage

DEFAULT_CONFIG = "config"
PER_JOB = ("seed=", "resume=")
"""Each job has its own seed, and goes on where it was; the sweep has a fresh directory by resume=never."""
OWN_SUBDIR = "hydra.sweep.subdir"


@dataclass(frozen=True)
class Plan:
    """Everything that a sweep is a function of."""

    settings: SweepConfig
    command: Command
    space: SearchSpace
    config: DictConfig
    """What the command line composes without the parameters of the search."""
    proposal: tuple[str, ...]
    """Overrides of some trial, which no study knows of."""
    job: DictConfig
    """What they compose."""
    directory: Path
    storage: str
    """Where the study lives, for this process."""
    storage_for_jobs: str
    """The same with interpolations as they were written: secrets in variables stay out of command lines."""
    name: str
    seed: int
    """Of the first run of each trial."""

    def definition(self) -> dict[str, Any]:
        """What makes the study the study that it is, as plain values."""
        settings = self.settings
        return {
            "parameters": self.space.definition(),
            "overrides": list(self.command.fixed),
            "seed": self.seed,
            "seeds": settings.seeds,
            "aggregate": settings.aggregate.value,
            "objective": settings.objectives,
            "direction": settings.directions,
            CONFIGURATION: _configuration(self.job),
        }


def make_plan(
    settings: SweepConfig, config: DictConfig, arguments: Sequence[str], context: HydraContext
) -> Plan:
    """The plan of a command line, after a first job of it was composed: raises for what no job could take."""
    space = search_space(arguments, settings.params, settings.custom_search_space)
    hydra = config.hydra
    if any(str(override).startswith(OWN_SUBDIR) for override in hydra.overrides.hydra):
        raise UserError(f"{OWN_SUBDIR} cannot be set: trials are numbered, and found again by their numbers")
    proposal = space.suggest(_any_trial(), config)
    chosen = [argument for argument in arguments if argument.startswith(f"{CHOSEN_BY}=")]
    loader = context.config_loader
    job = loader.load_sweep_config(config, [*chosen, *space.fixed, *proposal])
    if chosen:
        without = loader.load_configuration(hydra.job.config_name, [*space.fixed, *proposal], RunMode.RUN)
        _refuse_settings_beside(chosen[0], job, without)
    trainer = job.trainer
    settings.check_budget(
        trainer.max_steps if trainer.frequency_unit.name == "steps" else trainer.max_episodes
    )
    directory = Path(hydra.sweep.dir)
    raw: dict[str, Any] = OmegaConf.to_container(hydra.sweeper, resolve=False)  # pyright: ignore[reportAssignmentType]
    journal = default_storage(directory)
    return Plan(
        settings=settings,
        command=Command(
            flags=_flags(hydra),
            fixed=tuple(override for override in space.fixed if not override.startswith(PER_JOB)),
            hydra=tuple(hydra.overrides.hydra),
            launcher=hydra.runtime.choices["hydra/launcher"],
        ),
        space=space,
        config=config,
        proposal=tuple(proposal),
        job=job,
        directory=directory,
        storage=settings.storage or journal,
        storage_for_jobs=absolute_storage(raw["storage"] or journal),
        name=settings.study_name or directory.absolute().name,
        seed=int(job.seed),
    )


def _configuration(job: DictConfig) -> dict[str, Any]:
    """What a job composes, setting by setting: it may change while the command that names a file stays."""
    asked = ("hydra", "seed", *SESSION_KEYS)
    return {
        ".".join(key): value
        for key, value in leaves(to_plain_config(job, resolve=False)).items()
        if key[0] not in asked
    }


def absolute_storage(storage: str) -> str:
    """A storage that means the same in a job that works in another directory (hydra.job.chdir=true)."""
    server, separator, path = storage.rpartition(":///")
    is_file = server.startswith("sqlite") if separator else "://" not in storage
    if not is_file or "${" in storage:
        return storage
    return f"{server}{separator}{Path(path).absolute()}"


def _refuse_settings_beside(chosen: str, job: DictConfig, without: DictConfig) -> None:
    """Raise where a file with a search space sets more than Hydra's settings: jobs do not read that file."""
    seen = leaves(to_plain_config(without, resolve=False))
    given = leaves(to_plain_config(job, resolve=False))
    lost = [".".join(key) for key in given if key[0] != "hydra" and given[key] != seen.get(key, ...)]
    if lost:
        raise UserError(
            f"{chosen} sets {', '.join(lost)}, but its jobs do not read that file; move what is the same in "
            "all of them to hydra.sweeper.params, where a single value is fixed, or to an experiment"
        )


def _flags(hydra: DictConfig) -> tuple[str, ...]:
    paths = {source.provider: source.path for source in hydra.runtime.config_sources}
    if Path(paths["main"]) != CONF:
        raise UserError("the jobs of a sweep know no --config-path; add options with --config-dir instead")
    given = paths.get("command-line")
    name: str = hydra.job.config_name
    named = [f"--config-name={name}"] if name != DEFAULT_CONFIG else []
    return (*named, *([f"--config-dir={given}"] if given else []))


def _any_trial() -> optuna.Trial:
    """A trial of no study, to see what the search space makes of it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
