"""Numbers that an environment reports in `info`, averaged over the steps of an episode."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

MOST_KEYS = 100
"""Metrics that an environment may report; more would fill logs and checkpoints."""
_KEY = re.compile(r"[\w.:-][\w.: -]*(/[\w.:-][\w.: -]*)*")
"""Names that every logger accepts."""
_LONGEST = 100
_LARGEST = 1e100
"""Absolute values above it are left out: sums over all steps of a run stay finite numbers."""


class EpisodeMetrics(NamedTuple):
    """What an environment reported in one episode."""

    means: dict[str, float]
    """By metric, the mean over the steps in which it appeared."""
    problems: dict[str, str]
    """By metric, why a value was left out."""


NO_METRICS = EpisodeMetrics({}, {})


class InfoMetrics:
    """Collects the metrics of the open episode: `info["metrics"]`, and the keys of `info` that are named.

    A value that is not one number of at most 1e100 is left out, and the episode tells why. A replayed episode
    reports the same again, so a resume needs no state of it.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        """`keys` of `info` are metrics too (`env.info_metrics`)."""
        self.keys = tuple(keys)
        self._sums: dict[str, list[float]] = {}
        self._problems: dict[str, str] = {}

    def begin_episode(self) -> None:
        """Forget the episode that was open."""
        if self._sums or self._problems:
            self._sums, self._problems = {}, {}

    def add(self, info: Mapping[str, Any]) -> None:
        """Add the metrics of one step."""
        reported = info.get("metrics")
        if isinstance(reported, Mapping):
            for key, value in cast("Mapping[Any, Any]", reported).items():
                self._add(key, value)
        elif reported is not None:
            self._problems["metrics"] = f'info["metrics"] is {reported!r:.60}, not a dict of numbers'
        for key in self.keys:
            if key in info:
                self._add(key, info[key])

    def end_episode(self) -> EpisodeMetrics:
        """The means of the episode that ends."""
        if not (self._sums or self._problems or self.keys):
            return NO_METRICS
        for key in self.keys:
            if key not in self._sums and key not in self._problems:
                self._problems[key] = "env.info_metrics names it, but no step of an episode had it in info"
        means = {key: total / count for key, (total, count) in self._sums.items()}
        return EpisodeMetrics(means, dict(self._problems))

    def _add(self, key: Any, value: Any) -> None:
        if type(value) is not float or not -_LARGEST <= value <= _LARGEST:
            number = _number(value)
            if number is None:
                self._problems[" ".join(str(key).split())[:_LONGEST]] = (
                    f"{' '.join(repr(value).split()):.60} is not one number up to {_LARGEST:g}"
                )
                return
            value = number
        sums = self._sums.get(key)
        if sums is not None:
            sums[0] += value
            sums[1] += 1
        elif problem := self._problem_with_name(key):
            self._problems[str(key)[:_LONGEST]] = problem
        else:
            self._sums[key] = [value, 1]

    def _problem_with_name(self, key: Any) -> str | None:
        if not isinstance(key, str) or len(key) > _LONGEST or not _KEY.fullmatch(key) or ".." in key:
            return (
                f"a name has letters, digits, `_`, `-`, `.`, `:`, blanks and single slashes, "
                f"{_LONGEST} characters at most"
            )
        return f"there are more than {MOST_KEYS} metrics" if len(self._sums) >= MOST_KEYS else None


def info_metrics_of(part: Any) -> Sequence[str]:
    """The keys of `info` that an environment part names as metrics."""
    return getattr(part, "info_metrics", ())


def mean_of_episodes(episodes: Sequence[EpisodeMetrics]) -> EpisodeMetrics:
    """By metric, the mean over the episodes in which it appeared; and all problems."""
    values: dict[str, list[float]] = {}
    problems: dict[str, str] = {}
    for episode in episodes:
        problems.update(episode.problems)
        for key, mean in episode.means.items():
            values.setdefault(key, []).append(mean)
    return EpisodeMetrics({key: sum(each) / len(each) for key, each in values.items()}, problems)


def _number(value: Any) -> float | None:
    """The number that `value` is, or holds as its only element; None if it is none that can be summed."""
    if isinstance(value, (str, bytes, Mapping)):
        return None
    try:
        array = np.asarray(value)
        fits = array.size == 1 and array.dtype.kind in "fiub"
        number = float(array.reshape(()).item()) if fits else math.nan
    except Exception:
        return None
    return number if abs(number) <= _LARGEST else None
