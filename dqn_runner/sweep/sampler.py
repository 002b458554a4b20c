"""The study of a sweep: opening it, proposing trials, and taking over those that nobody finishes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GridSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class PerTrialSampler(BaseSampler):
    """Proposes trial n by a sampler that is made for it, with a seed of its own.

    So the proposals depend on the seed, the trial's number and the results so far, and on nothing that a
    killed process would take with it; and processes that share a study never propose the same.
    """

    def __init__(self, make: Callable[[int], BaseSampler]) -> None:
        self._make = make
        self._inner = make(0)

    def __str__(self) -> str:
        return str(self._inner)

    @property
    def inner(self) -> BaseSampler:
        """The sampler of the trial that was asked for last."""
        return self._inner

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial."""
        self._inner = self._make(trial.number)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the sampler does."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the sampler does."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the sampler does."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """As the sampler does, but for the grid's, which would stop a loop that there is none of here."""
        if not isinstance(self._inner, GridSampler):
            self._inner.after_trial(study, trial, state, values)


def grid_is_exhausted(study: Study) -> bool:
    """Whether every point of a grid has its trial, which may still run; Optuna would propose it again."""
    sampler = study.sampler
    grid = sampler.inner if isinstance(sampler, PerTrialSampler) else sampler
    if not isinstance(grid, GridSampler):
        return False
    return len(study.get_trials(deepcopy=False)) >= grid._n_min_trials  # pyright: ignore[reportPrivateUsage]
