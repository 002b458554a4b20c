"""The plan of a sweep, made before anything runs: settings, search space, commands, directories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from dqn_runner.config.overrides import bare_key, written_overrides
from dqn_runner.config.schema import CONF, DEFAULT_CONFIG, fit_defaults, to_plain_config
from dqn_runner.config.secret_arguments import STORAGE, move_to_environment
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.secrets import has_password
from dqn_runner.run.compatibility import SESSION_KEYS, leaves, same_setting
from dqn_runner.sweep.config import Session, SweepConfig
from dqn_runner.sweep.definition import CONFIGURATION
from dqn_runner.sweep.jobs import Command
from dqn_runner.sweep.sampler import PerTrialSampler, seed_of
from dqn_runner.sweep.search_space.space import CHOSEN_BY, SearchSpace, search_space
from dqn_runner.sweep.study import default_storage

PER_JOB = ("seed=", "resume=")
"""Overrides that are not passed to jobs: each has its own seed, and resumes its own run."""
SUBDIR = "hydra.sweep.subdir"


@dataclass(frozen=True)
class Plan:
    """Everything that defines a sweep."""

    settings: SweepConfig
    command: Command
    space: SearchSpace
    config: DictConfig
    """The configuration of the command line, without the parameters of the search."""
    proposal: tuple[str, ...]
    """The overrides of an example trial, which is not part of the study."""
    job: DictConfig
    """The configuration that these overrides compose."""
    directory: Path
    storage: str
    """The storage of the study, for this process."""
    storage_for_jobs: str
    """The same with unresolved interpolations, which keeps secrets in variables off the command lines."""
    name: str
    seed: int
    """The seed of the first run of each trial."""

    def definition(self) -> dict[str, Any]:
        """The plain values that must be the same whenever the study is resumed."""
        settings = self.settings
        return {
            "parameters": self.space.definition(),
            "overrides": [text for text in self.command.fixed if not text.lstrip("+").startswith("trust=")],
            "seed": self.seed,
            "seeds": settings.seeds,
            "aggregate": settings.aggregate.value,
            "objective": settings.objectives,
            "direction": settings.directions,
            CONFIGURATION: _configuration(self.job, self.space),
        }

    def session(self) -> Session:
        """What may be different whenever the study is resumed, as far as reports need it."""
        return {
            "n_trials": self.settings.n_trials,
            "validate": self.settings.validate,
            "constraints": dict(self.settings.constraints),
            "flags": list(self.command.flags),
            "search_path": self.command.search_path(),
        }


def make_plan(
    settings: SweepConfig, config: DictConfig, arguments: Sequence[str], context: HydraContext
) -> Plan:
    """The plan of a command line. Composes an example job; raises if its configuration is not valid."""
    space = search_space(arguments, settings.params, settings.custom_search_space)
    hydra = config.hydra
    if any(str(override).startswith(SUBDIR) for override in hydra.overrides.hydra):
        raise UserError(f"{SUBDIR} cannot be set: the directory of a trial is its number")
    command = Command(
        flags=_flags(hydra),
        fixed=tuple(override for override in space.fixed if not override.startswith(PER_JOB)),
        hydra=written_overrides(hydra.overrides.hydra),
        launcher=hydra.runtime.choices["hydra/launcher"],
    )
    proposal = space.suggest(_example_trial(), config)
    chosen = [argument for argument in arguments if argument.startswith(f"{CHOSEN_BY}=")]
    loader = context.config_loader
    job = loader.load_sweep_config(config, [*chosen, *space.fixed, *proposal])
    if chosen:
        overrides = [*command.search_path(), *space.fixed, *proposal]  # as the jobs find their files
        without = loader.load_configuration(hydra.job.config_name, overrides, RunMode.RUN)
        _reject_settings_of_search(chosen[0], job, without)
    if job.mode.name != "train":
        raise UserError(
            f"the jobs of this sweep train; mode={job.mode.name} needs -m without hydra/sweeper=optuna"
        )
    fit_defaults(job)
    trainer = job.trainer
    searched = [*(p.name for p in space.parameters), *(text.partition("=")[0] for text in proposal)]
    settings.check_budget(
        trainer.max_steps if trainer.frequency_unit.name == "steps" else trainer.max_episodes,
        set(map(bare_key, searched)),
    )
    directory = Path(hydra.sweep.dir)
    raw: dict[str, Any] = OmegaConf.to_container(hydra.sweeper, resolve=False)  # pyright: ignore[reportAssignmentType]
    journal = default_storage(directory)
    return Plan(
        settings=settings,
        command=command,
        space=space,
        config=config,
        proposal=tuple(proposal),
        job=job,
        directory=directory,
        storage=journal if settings.storage is None else settings.storage,
        storage_for_jobs=storage_of_jobs(journal if settings.storage is None else raw["storage"]),
        name=directory.absolute().name if settings.study_name is None else settings.study_name,
        seed=int(job.seed),
    )


def _configuration(job: DictConfig, space: SearchSpace) -> dict[str, Any]:
    """The settings of a job, by dotted key; a file can change them while the command stays the same.

    A searched setting is not one of them: its value is that of an example.
    """
    excluded = ("hydra", "seed", *SESSION_KEYS)
    searched = {bare_key(parameter.name) for parameter in space.parameters}
    return {
        ".".join(key): value
        for key, value in leaves(to_plain_config(job, resolve=False)).items()
        if key[0] not in excluded and ".".join(key) not in searched
    }


def storage_of_jobs(storage: str) -> str:
    """The storage as jobs get it on their command line: without a password, which they inherit in a variable.

    Its path is absolute, because jobs may change their working directory (hydra.job.chdir=true).
    """
    server, separator, path = storage.rpartition(":///")
    is_file = server.startswith("sqlite") if separator else "://" not in storage
    if has_password(storage):
        return move_to_environment(STORAGE, storage)
    if not is_file or "${" in storage:
        return storage
    return f"{server}{separator}{Path(path).absolute()}"


def _reject_settings_of_search(chosen: str, job: DictConfig, without: DictConfig) -> None:
    """Raise UserError if a file of the group `search` sets more than Hydra's settings, unseen by jobs."""
    expected = leaves(to_plain_config(without, resolve=False))
    given = leaves(to_plain_config(job, resolve=False))
    lost = [
        ".".join(key)
        for key in given
        if key[0] != "hydra" and not same_setting(given[key], expected.get(key, ...))
    ]
    if lost:
        raise UserError(
            f"{chosen} sets {', '.join(lost)}, but the jobs do not read that file; move these settings to "
            "hydra.sweeper.params, where a single value is the same for all jobs, or to an experiment"
        )


def _flags(hydra: DictConfig) -> tuple[str, ...]:
    paths = {source.provider: source.path for source in hydra.runtime.config_sources}
    if Path(paths["main"]) != CONF:
        raise UserError("a sweep does not support --config-path; add options with --config-dir instead")
    given = paths.get("command-line")
    name: str = hydra.job.config_name
    named = [f"--config-name={name}"] if name != DEFAULT_CONFIG else []
    return (*named, *([f"--config-dir={given}"] if given else []))


def _example_trial() -> optuna.Trial:
    """A trial outside of the study, for the example job; a value depends only on the name of its setting."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def make(number: int, name: str | None) -> optuna.samplers.BaseSampler:
        return optuna.samplers.RandomSampler(seed_of(0, number, name))

    return optuna.create_study(sampler=PerTrialSampler(make, per_parameter=True)).ask()
