"""A sampler whose proposals do not depend on the process that uses it."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseGASampler, BaseSampler, QMCSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from dqn_runner.sweep.optuna_parts import naming_arguments

TRIED = 11
"""How many proposals of a sampler are tried; most samplers propose the first 10 at random."""


def proposing() -> AbstractContextManager[None]:
    """Within the block, a sampler proposes values: what it raises of a wrong argument becomes a UserError."""
    return naming_arguments("sampler", "propose the values of a trial")


def try_sampler(
    sampler: BaseSampler, directions: Sequence[StudyDirection], run: Callable[[Trial], object]
) -> None:
    """Let a sampler propose trials of a study in memory; raises UserError if it cannot.

    Optuna's samplers read most of their arguments only when they propose. `run` suggests the values of a
    trial, and stores what the sampler reads of it.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # the sweep itself shows what it warns of
    study = optuna.create_study(sampler=sampler, directions=directions)
    with proposing(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(TRIED):
            trial = study.ask()
            run(trial)
            study.tell(trial, [float(number)] * len(directions))


def seed_of(seed: int, number: int, name: str | None) -> int:
    """The seed of a sampler for the trial of this number, or for one of its parameters."""
    words = [seed, number] if name is None else [seed, number, zlib.crc32(name.encode())]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def take_point(sampler: QMCSampler, number: int) -> None:
    """Let a sampler propose the point of its sequence that belongs to the trial of this number.

    Optuna counts points in the study, where a process that dies leaves one out. The first trial has no point:
    it shows which parameters there are.
    """

    def point(study: Study, search_space: dict[str, BaseDistribution]) -> int:
        del study, search_space
        return max(number - 1, 0)

    sampler._find_sample_id = point  # pyright: ignore[reportPrivateUsage]


Make = Callable[[int, str | None], BaseSampler]
"""Creates the sampler for the trial of this number, or for one of its parameters."""


class PerTrialSampler(BaseSampler):
    """Creates a sampler for each trial, with a seed that depends on the number of the trial.

    The proposals depend only on the seed of the sweep, the number of the trial and the results so far. A
    resumed sweep therefore proposes the same values, and processes that share a study propose different ones.

    Values that are drawn one after the other depend on the name of their parameter too. A process can die
    between two of them, and those that the study has are not drawn again.
    """

    def __init__(self, make: Make, *, per_parameter: bool) -> None:
        """Without `per_parameter`, one sampler draws all values of a trial."""
        self._make = make
        self._per_parameter = per_parameter
        self._sampler = make(0, None)

    def __str__(self) -> str:
        return str(self._sampler)

    @property
    def current(self) -> BaseSampler:
        """The sampler of the latest trial."""
        return self._sampler

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Create the sampler of this trial."""
        self._sampler = self._make(trial.number, None)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Forwarded to the sampler of the trial."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Forwarded to the sampler of the trial, after another one has selected the parents.

        A genetic algorithm selects them at random and stores them in the study, once. So if a process dies
        after that, the next one does not draw these numbers.
        """
        if isinstance(self._sampler, BaseGASampler):
            trial = _select_parents(self._make(trial.number, None), study, trial)
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Forwarded to the sampler of the parameter, or of the trial."""
        sampler = self._make(trial.number, param_name) if self._per_parameter else self._sampler
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Forwarded; what stops `Study.optimize` has no effect, because that does not run here."""
        asks_to_stop(self._sampler, study, trial, state, values)


def _select_parents(sampler: BaseSampler, study: Study, trial: FrozenTrial) -> FrozenTrial:
    """Store the generation of a trial and its parents; returns the trial with its generation."""
    assert isinstance(sampler, BaseGASampler)
    sampler.get_parent_population(study, sampler.get_trial_generation(study, trial))
    return study._storage.get_trial(trial._trial_id)  # pyright: ignore[reportPrivateUsage]


def asks_to_stop(
    sampler: BaseSampler,
    study: Study,
    trial: FrozenTrial,
    state: TrialState,
    values: Sequence[float] | None,
) -> bool:
    """Tell a sampler that a trial ends; whether it would stop `Study.optimize`."""
    asked: list[bool] = []
    study.stop = lambda: asked.append(True)  # not on a copy: the study of a bracket of Hyperband has none
    try:
        sampler.after_trial(study, trial, state, values)
    finally:
        del study.stop
    return bool(asked)
