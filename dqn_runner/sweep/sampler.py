"""A sampler whose proposals do not depend on the process that uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GridSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class PerTrialSampler(BaseSampler):
    """Creates a sampler for each trial, with a seed that depends on the number of the trial.

    The proposals depend only on the seed of the sweep, the number of the trial and the results so far. A
    resumed sweep therefore proposes the same values, and processes that share a study propose different ones.
    """

    def __init__(self, make: Callable[[int], BaseSampler]) -> None:
        """`make` creates the sampler for the trial of this number."""
        self._make = make
        self._sampler = make(0)

    def __str__(self) -> str:
        return str(self._sampler)

    @property
    def current(self) -> BaseSampler:
        """The sampler of the latest trial."""
        return self._sampler

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Create the sampler of this trial."""
        self._sampler = self._make(trial.number)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Forwarded to the sampler of the trial."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Forwarded to the sampler of the trial."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Forwarded to the sampler of the trial."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Forwarded, but not to a GridSampler, which would stop `Study.optimize`; it does not run here."""
        if not isinstance(self._sampler, GridSampler):
            self._sampler.after_trial(study, trial, state, values)


def grid_is_exhausted(study: Study) -> bool:
    """Whether every point of a grid has a trial, finished or running; Optuna would propose it again."""
    sampler = study.sampler
    grid = sampler.current if isinstance(sampler, PerTrialSampler) else sampler
    if not isinstance(grid, GridSampler):
        return False
    return len(study.get_trials(deepcopy=False)) >= grid._n_min_trials  # pyright: ignore[reportPrivateUsage]
