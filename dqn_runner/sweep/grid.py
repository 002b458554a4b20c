"""Sweeps that try every point of their search space: which points are left, and when they end."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, cast

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from dqn_runner.sweep.sampler import PerTrialSampler, asks_to_stop
from dqn_runner.sweep.search_space.space import SearchSpace
from dqn_runner.sweep.trial_record import TrialRecord

Point = dict[str, Any]


class UntriedPoints(BaseSampler):
    """Proposes the points of a grid that no trial has tried, in the order of Optuna's GridSampler.

    GridSampler itself counts only its own trials with the same seed, and repeats or omits points of others.
    """

    def __init__(self, grid: GridSampler, space: SearchSpace) -> None:
        """`grid` has every combination of the parameters of `space`."""
        names = grid._param_names  # pyright: ignore[reportPrivateUsage]
        every = cast("list[tuple[Any, ...]]", grid._all_grids)  # pyright: ignore[reportPrivateUsage]
        self._points: list[Point] = [dict(zip(names, values, strict=True)) for values in every]
        self._texts = [space.texts(point) for point in self._points]
        self._space = space
        self._point: Point = {}

    def untried(self, study: Study, start: int = 0) -> list[Point]:
        """The points that no trial has tried, finished or running, in their order from `start` on."""
        trials = study.get_trials(deepcopy=False)
        tried = {self._texts_of(trial) for trial in trials}
        left = [index for index, texts in enumerate(self._texts) if texts not in tried]
        first = bisect_left(left, start)
        return [self._points[index] for index in left[first:] + left[:first]]

    def _texts_of(self, trial: FrozenTrial) -> tuple[str, ...]:
        try:
            return self._space.texts(trial.params)
        except ValueError:  # no value of this search space; the queue rejects the trial
            return ()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Choose the point; the trial may have some of its values, if a process died while it got them.

        Trial n gets point n if that is untried, so that processes which start at once choose different ones.
        """
        start = trial.number % len(self._points)
        untried = self.untried(study, start)
        possible = [point for point in untried if trial.params.items() <= point.items()]
        self._point = (possible or [self._points[start]])[0]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: each value is that of the point."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing: each value is that of the point."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of the point."""
        return self._point[param_name]


def expected_trials(study: Study, n_trials: int) -> int:
    """How many trials the study will have: `n_trials`, or fewer if its search space has fewer points."""
    untried = untried_points(study)
    return n_trials if untried is None else min(n_trials, len(study.get_trials(deepcopy=False)) + untried)


def untried_points(study: Study) -> int | None:
    """The number of points of a grid that no trial has tried, finished or running.

    None for a sampler that does not try every point, or that does not know their number before the last one.
    """
    match study.sampler:
        case UntriedPoints() as grid:
            return len(grid.untried(study))
        case PerTrialSampler(current=BruteForceSampler() as sampler):
            return 0 if _is_exhausted(sampler, study) else None
        case _:
            return None


def leave_out_lost(sampler: BruteForceSampler) -> None:
    """Let a sampler ignore the trials whose values are lost, which do not say what has been tried.

    Optuna cannot place them in its tree, and raises ValueError.
    """
    populate = sampler._populate_tree  # pyright: ignore[reportPrivateUsage]

    def populate_with_others(tree: Any, trials: list[FrozenTrial], params: dict[str, Any]) -> None:
        populate(tree, [trial for trial in trials if not _is_lost(trial)], params)

    sampler._populate_tree = populate_with_others  # pyright: ignore[reportPrivateUsage]


def _is_lost(trial: FrozenTrial) -> bool:
    """Whether the repair of a journal ended a trial while it got its values.

    The copy of a trial that the sampler makes has no number.
    """
    ended = trial.number >= 0 and trial.state is TrialState.FAIL
    return ended and not TrialRecord(trial).has_overrides


def _is_exhausted(sampler: BruteForceSampler, study: Study) -> bool:
    """Whether a BruteForceSampler would stop `Study.optimize` if the latest trial ended now."""
    states = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    trials: Sequence[FrozenTrial] = study.get_trials(deepcopy=False, states=states)
    latest = next((trial for trial in reversed(trials) if trial.params and not _is_lost(trial)), None)
    try:
        return latest is not None and asks_to_stop(sampler, study, latest, TrialState.FAIL, None)
    except ValueError:  # a trial of another search space; the sampler does not propose more points then
        return False
