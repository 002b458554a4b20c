"""Creates and loads the study of a sweep, with its sampler and its pruner."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from omegaconf import DictConfig
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler, QMCSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from dqn_runner.core.exceptions import UserError
from dqn_runner.io.entries import is_file
from dqn_runner.sweep import cmaes_state
from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.definition import changes
from dqn_runner.sweep.grid import UntriedPoints, leave_out_lost
from dqn_runner.sweep.names import JOURNAL
from dqn_runner.sweep.optuna_parts import TARGET, is_sampler, make_part, pruner_imports
from dqn_runner.sweep.sampler import PerTrialSampler, seed_of, take_point, try_sampler
from dqn_runner.sweep.search_space.space import SearchSpace
from dqn_runner.sweep.storages.factory import open_storage, without_password
from dqn_runner.sweep.storages.journal_reader import JournalReader
from dqn_runner.sweep.storages.rdb import RETRY_SECONDS
from dqn_runner.sweep.trial_record import (
    TrialRecord,
    definition_of,
    pruner_of,
    store_definition,
    store_metrics,
)

ENUMERATING = ("GridSampler", "QMCSampler")
"""Samplers that enumerate points in an order given by the seed; all trials need the same seed."""

MOST_LISTED = 10
"""How many directories an error lists."""

STUDY_WARNINGS = "Fixed parameter |The value .* out of|Inconsistent parameter values"
"""What Optuna says of values in a study that are not in the search space, which are rejected."""

UNCONSTRAINED = ("RandomSampler", "GridSampler", "CmaEsSampler", "QMCSampler")
"""Samplers that do not support constraints."""


def create_study(
    storage: str, name: str, settings: SweepConfig, definition: Mapping[str, Any], directory: Path
) -> Study:
    """Create the study of the sweep in `directory`, or load it if it exists.

    Raises UserError if the directory has runs of another study, or if the study was created with another
    definition (see `Plan.definition`).
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    opened = open_storage(storage)
    _reject_runs_of_others(opened, name, directory)
    directions = _directions(settings)
    study = optuna.create_study(storage=opened, study_name=name, directions=directions, load_if_exists=True)
    stored = definition_of(study)
    if stored is None:
        store_definition(study, definition)
    elif changed := changes(stored, definition):
        raise UserError(
            f"the study {name} in {without_password(storage)} was created with other "
            f"{' and '.join(changed)} "
            f"({'; '.join(changed.values())}); repeat the "
            "old command to continue it, or choose another hydra.sweep.dir or hydra.sweeper.study_name"
        )
    return study


def load_study(storage: str, name: str, imports: Sequence[str] = ()) -> Study:
    """The study as a job uses it, with the pruner of the sweep.

    Raises UserError if the pruner is neither one of Optuna nor among `imports`, which the command names.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(
        storage=open_storage(storage, RETRY_SECONDS),
        study_name=name,
        sampler=optuna.samplers.RandomSampler(),
    )
    if unknown := [path for path in pruner_imports(pruner_of(study)) if path not in imports]:
        raise UserError(
            f"the study {name} asks for the pruner {', '.join(unknown)}, which is not one of Optuna; nothing "
            "of it was imported. If you trust the study, add study.imports=[...] with these names"
        )
    study.pruner = make_part("pruner", pruner_of(study))
    return study


def read_study(sweep_dir: Path) -> Study:
    """The study of the sweep in a directory, to be read only: nothing is written, locked or repaired.

    Raises UserError if the study is in another storage, or if its journal has no study or several.
    """
    journal = sweep_dir / JOURNAL
    if not is_file(journal):
        raise UserError(
            f"{sweep_dir} has no {JOURNAL}: its study is in a database or in another journal. The sweep "
            "itself writes the report; repeat its command"
        )
    try:
        storage = optuna.storages.JournalStorage(JournalReader(journal))
        names = _names_with_trials(storage)
        if len(names) != 1:
            found = f"several studies with trials: {', '.join(names)}" if names else "no study"
            raise UserError(f"{journal} has {found}; a report needs a directory with one sweep")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna.load_study(
            study_name=names[0], storage=storage, sampler=optuna.samplers.RandomSampler()
        )
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise UserError(f"{journal} is not the journal of one sweep, or is damaged ({error})") from error


def _names_with_trials(storage: BaseStorage) -> list[str]:
    """The studies in a storage, without those that have no trial if another one has."""
    names = optuna.get_all_study_names(storage)
    return [name for name in names if storage.get_n_trials(storage.get_study_id_from_name(name))] or names


def make_sampler(settings: SweepConfig, space: SearchSpace, seed: int) -> BaseSampler:
    """The sampler of a sweep; `seed` is the seed of one that has a seed but sets none."""
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message=STUDY_WARNINGS)
    cmaes_state.read_as_data()
    config = dict(settings.sampler)
    if config.get("seed") is None and "seed" in config:
        config["seed"] = seed
    _check_seed(config.get("seed", 0))
    extra: dict[str, Any] = {"search_space": space.grid()} if is_sampler(config, "GridSampler") else {}
    if is_sampler(config, "BruteForceSampler"):
        space.check_finite()
    if settings.constraints:
        if is_sampler(config, *UNCONSTRAINED):
            kind = str(config[TARGET]).rpartition(".")[2]
            raise UserError(
                f"{kind} does not support hydra.sweeper.constraints; choose hydra.sweeper.sampler=tpe or gp"
            )
        extra["constraints_func"] = _constraints(settings.constraints)
    enumerates = is_sampler(config, *ENUMERATING)

    def make(number: int, name: str | None) -> BaseSampler:
        arguments, objects = {**config}, {**extra}
        if "seed" in config and not enumerates:
            arguments["seed"] = seed_of(config["seed"], number, name)
        elif name is not None and config.get("independent_sampler") is None:
            objects["independent_sampler"] = RandomSampler(seed_of(config["seed"], number, name))
        sampler: BaseSampler = make_part("sampler", arguments, **objects)
        if isinstance(sampler, QMCSampler):
            take_point(sampler, number)
        if isinstance(sampler, BruteForceSampler):
            leave_out_lost(sampler)
        return sampler

    sampler = make(0, None)
    if isinstance(sampler, GridSampler):
        return UntriedPoints(sampler, space)
    # A sampler of one's own may expect to see all parameters of a trial.
    ours = "seed" in config and str(config[TARGET]).startswith("optuna.samplers.")
    return PerTrialSampler(make, per_parameter=ours)


def check_sampler(settings: SweepConfig, space: SearchSpace, config: DictConfig) -> None:
    """Raise UserError if the sampler cannot propose trials; a grid needs no test.

    `config` is passed to a custom search space.
    """

    def run(trial: Trial) -> None:
        space.suggest(trial, config)
        store_metrics(trial, dict.fromkeys(settings.constraints, 0.0))

    sampler = make_sampler(settings, space, seed=0)  # another one than the sweep's, which does not change
    if isinstance(sampler, PerTrialSampler):
        try_sampler(sampler, _directions(settings), run)


def requeue(study: Study, trial: FrozenTrial | Trial) -> None:
    """Let a trial wait again, for example because the process that ran it has died."""
    study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)  # pyright: ignore[reportPrivateUsage]


def running_trial(study: Study, number: int) -> Trial:
    """The running trial of this number, to which a job reports."""
    (frozen,) = (trial for trial in study.get_trials(deepcopy=False) if trial.number == number)
    return Trial(study, frozen._trial_id)  # pyright: ignore[reportPrivateUsage]


def default_storage(sweep_dir: Path) -> str:
    """The journal in the sweep directory."""
    return str(sweep_dir.absolute() / JOURNAL)


def _directions(settings: SweepConfig) -> list[StudyDirection]:
    return [StudyDirection[direction.upper()] for direction in settings.directions]


def _check_seed(seed: object) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UserError(f"hydra.sweeper.sampler.seed must be an integer from 0 on, got {seed!r}")


def _reject_runs_of_others(storage: BaseStorage, name: str, directory: Path) -> None:
    """Raise UserError if the directory holds trials of another study; jobs would resume their runs."""
    runs = {int(path.name) for path in directory.iterdir() if path.is_dir() and path.name.isdecimal()}
    names = optuna.get_all_study_names(storage)
    trials = (
        storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False) if name in names else []
    )
    known = {t.number for t in trials if t.state.is_finished() or TrialRecord(t).directory is not None}
    if runs <= known:
        return
    unknown = sorted(runs - known)
    if others := [other for other in _names_with_trials(storage) if other != name]:
        hint = f", or continue it with hydra.sweeper.study_name={' or '.join(others)}"
    else:
        more = len(unknown) - MOST_LISTED
        listed = ", ".join(map(str, unknown[:MOST_LISTED])) + (f" and {more} more" if more > 0 else "")
        hint = (
            "; or, if the study has lost its end, restore a copy of it, or move the directories "
            f"{listed} away to continue without these trials"
        )
    raise UserError(
        f"{directory} holds runs that are not in the study {name}, such as {unknown[0]}; choose another "
        f"hydra.sweep.dir{hint}"
    )


def _constraints(bounds: Mapping[str, float]) -> Callable[[FrozenTrial], list[float]]:
    """Optuna's `constraints_func`: for each bound a number that is positive if it is exceeded."""

    def excess(trial: FrozenTrial) -> list[float]:
        metrics = TrialRecord(trial).metrics
        return [metrics.get(name, np.inf) - bound for name, bound in bounds.items()]

    return excess
