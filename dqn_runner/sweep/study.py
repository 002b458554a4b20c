"""The study of a sweep: opening it, proposing trials, and taking over those that nobody finishes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from hydra.utils import instantiate
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.sampler import PerTrialSampler
from dqn_runner.sweep.search_space.space import SearchSpace
from dqn_runner.sweep.storages.opening import open_storage, without_password
from dqn_runner.sweep.storages.rdb import PATIENCE

JOURNAL = "study.journal"
DEFINITION = "sweep"
"""The study's attribute that says what was asked; a later session must ask the same."""

PRUNED = "pruned"
"""A trial's attribute that says when and by what it was pruned."""

CONFIGURATION = "configuration"
"""The part of the definition that says what the settings of a job came to."""

FIXED_SEED = ("GridSampler", "QMCSampler")
"""These enumerate points in an order that the seed gives; all trials need the same one."""

UNCONSTRAINED = ("RandomSampler", "GridSampler", "CmaEsSampler", "QMCSampler")


def create_study(storage: str, name: str, settings: SweepConfig, definition: Mapping[str, Any]) -> Study:
    """Create the study, or take it up where it exists; raises where it was made for another question."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    directions = [StudyDirection[direction.upper()] for direction in settings.directions]
    study = optuna.create_study(
        storage=open_storage(storage), study_name=name, directions=directions, load_if_exists=True
    )
    known = study.user_attrs.get(DEFINITION)
    if known is None:
        study.set_user_attr(DEFINITION, dict(definition))
    elif changed := _changes(known, definition):
        raise UserError(
            f"the study {name} in {without_password(storage)} was begun with another {' and '.join(changed)} "
            f"({'; '.join(f'{key}: {change}' for key, change in changed.items())}); repeat the "
            "old command to go on with it, or choose another hydra.sweep.dir or hydra.sweeper.study_name"
        )
    return study


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """What differs between two definitions of a study: in the command, or else in the files that it names.

    Settings that only one of them knows are those of another version of the program.
    """
    found = {key: f"{old.get(key)} -> {new[key]}" for key in new if old.get(key) != new[key]}
    files = found.pop(CONFIGURATION, None)
    if found or files is None:
        return found
    before, after = old.get(CONFIGURATION, {}), new[CONFIGURATION]
    both = [key for key in after if key in before and before[key] != after[key]]
    return {key: f"{before[key]} -> {after[key]}" for key in both}


def names_of_studies(study: Study) -> list[str]:
    """The names of all studies in the storage of this one."""
    return optuna.get_all_study_names(study._storage)  # pyright: ignore[reportPrivateUsage]


def load_study(storage: str, name: str) -> Study:
    """The study as a job sees it, with the pruner that the sweep chose."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(
        storage=open_storage(storage, PATIENCE), study_name=name, sampler=optuna.samplers.RandomSampler()
    )
    study.pruner = make_pruner(study.user_attrs["pruner"])
    return study


def make_pruner(config: Mapping[str, Any]) -> optuna.pruners.BasePruner:
    """A pruner from its configuration."""
    return _make("pruner", config)


def set_sampler_and_pruner(study: Study, settings: SweepConfig, space: SearchSpace, seed: int) -> None:
    """Give the study its sampler and its pruner, and tell the pruner to the jobs."""
    config = dict(settings.sampler)
    kind = str(config["_target_"]).rpartition(".")[2]
    if config.get("seed") is None and "seed" in config:
        config["seed"] = seed
    extra: dict[str, Any] = {"search_space": space.grid()} if kind == "GridSampler" else {}
    if settings.constraints:
        if kind in UNCONSTRAINED:
            raise UserError(
                f"{kind} cannot keep to hydra.sweeper.constraints; choose hydra.sweeper.sampler=tpe or gp"
            )
        extra["constraints_func"] = _constraints(settings.constraints)

    def make(number: int) -> BaseSampler:
        own = {**config}
        if "seed" in config and kind not in FIXED_SEED:
            own["seed"] = int(np.random.SeedSequence([config["seed"], number]).generate_state(1)[0])
        return _make("sampler", own, **extra)

    study.sampler = PerTrialSampler(make)
    study.pruner = make_pruner(settings.pruner)
    if study.user_attrs.get("pruner") != settings.pruner:
        study.set_user_attr("pruner", settings.pruner)


def requeue(study: Study, trial: FrozenTrial) -> None:
    """Let somebody else take up a trial whose process died."""
    study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)  # pyright: ignore[reportPrivateUsage]


def take_up(study: Study, number: int) -> Trial:
    """The running trial of this number, as a job reports to it."""
    (frozen,) = (trial for trial in study.get_trials(deepcopy=False) if trial.number == number)
    return Trial(study, frozen._trial_id)  # pyright: ignore[reportPrivateUsage]


def validation_key(number: int, run: int) -> str:
    """The attribute of the study for the outcome of a run that validates a trial, which is finished then."""
    return f"validation_{number}_{run}"


def default_storage(sweep_dir: Path) -> str:
    """The journal in the sweep directory."""
    return str(sweep_dir.absolute() / JOURNAL)


def _make(part: str, config: Mapping[str, Any], **extra: Any) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Optuna 4 knows constraints only as a function
            return instantiate(dict(config), **extra)
    except Exception as error:
        raise UserError(f"hydra.sweeper.{part} cannot be made: {error.__cause__ or error}") from error


def _constraints(bounds: Mapping[str, float]) -> Callable[[FrozenTrial], list[float]]:
    """What Optuna asks for: a positive number for each bound that is exceeded."""

    def excess(trial: FrozenTrial) -> list[float]:
        metrics = trial.user_attrs.get("metrics", {})
        return [metrics.get(name, np.inf) - bound for name, bound in bounds.items()]

    return excess
