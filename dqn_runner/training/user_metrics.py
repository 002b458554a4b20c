"""Metrics that the environment reports: means between log lines and of evaluations, and their history."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from dqn_runner.core.log import log
from dqn_runner.core.state import State
from dqn_runner.envs.episode_metrics import MOST_KEYS, EpisodeMetrics

PREFIX = "metrics/"
"""Of the names of these metrics below `train/` and `eval/`, and in the tables of metrics.json."""


class UserMetrics:
    """The metrics of the environment; their names are those that appear.

    A table has one column per name and as many rows as there are log lines or evaluations; NaN where the
    metric did not appear.
    """

    def __init__(self) -> None:
        """No metrics."""
        self.train: dict[str, list[float]] = {}
        self.eval: dict[str, list[float]] = {}
        self._sums: dict[str, list[Any]] = {}
        """Total and number of the episodes since the last log line."""
        self._reported: set[str] = set()

    def add_episode(self, metrics: EpisodeMetrics) -> None:
        """Add a finished training episode."""
        for key, mean in self._accepted(metrics).items():
            sums = self._sums.setdefault(key, [0.0, 0])
            sums[0] += mean
            sums[1] += 1

    def flush(self, rows: int) -> dict[str, float]:
        """Means over the episodes since the last call; `rows` is the number of log lines with this one."""
        means = {key: total / count for key, (total, count) in self._sums.items() if count}
        self._sums = {}
        _append(self.train, means, rows)
        return {f"{PREFIX}{key}": mean for key, mean in means.items()}

    def add_evaluation(self, metrics: EpisodeMetrics, rows: int) -> dict[str, float]:
        """Add an evaluation; `rows` is the number of evaluations with this one."""
        means = self._accepted(metrics)
        _append(self.eval, means, rows)
        return {f"{PREFIX}{key}": mean for key, mean in means.items()}

    def state_dict(self) -> State:
        """The history, and the sums of the open log interval."""
        return {
            "sums": {key: list(sums) for key, sums in self._sums.items()},
            "train": {key: np.array(column) for key, column in self.train.items()},
            "eval": {key: np.array(column) for key, column in self.eval.items()},
        }

    def load_state_dict(self, state: State) -> None:
        """Restore both."""
        self._sums = {key: list(sums) for key, sums in state["sums"].items()}
        self.train = {key: np.asarray(column).tolist() for key, column in state["train"].items()}
        self.eval = {key: np.asarray(column).tolist() for key, column in state["eval"].items()}

    def _accepted(self, metrics: EpisodeMetrics) -> dict[str, float]:
        """The means whose names have a place; what is left out is reported, once per name and session."""
        if not (metrics.means or metrics.problems):
            return {}
        known = {*self._sums, *self.train, *self.eval}
        problems = dict(metrics.problems)
        accepted: dict[str, float] = {}
        for key, mean in metrics.means.items():
            if key in known or len(known) < MOST_KEYS:
                known.add(key)
                accepted[key] = mean
            else:
                problems["metrics"] = f"there are more than {MOST_KEYS} metrics; {key} is one of them"
        for key in problems.keys() - self._reported:
            log.warning("the environment's metric %s is left out: %s", key, problems[key])
        self._reported |= problems.keys()
        return accepted


def inconsistencies(stored: Any, rows: dict[str, int], where: str) -> Iterator[str]:
    """What is wrong with a stored state; `rows` are the lengths of the tables `train` and `eval`."""
    if not isinstance(stored, dict) or {*stored} != {"sums", "train", "eval"}:  # pyright: ignore[reportUnknownArgumentType]
        yield f"{where} has other keys than it can have"
        return
    state: State = stored  # pyright: ignore[reportUnknownVariableType]
    for key, sums in state["sums"].items():
        values: list[Any] = sums if isinstance(sums, list) else []  # pyright: ignore[reportUnknownVariableType]
        kinds: list[type] = [type(value) for value in values]
        if kinds != [float, int] or not math.isfinite(values[0]) or values[1] < 1:
            yield f"{where}.sums.{key} is not a sum"
    for table, length in rows.items():
        for key, column in state[table].items():
            array = np.asarray(column)
            if array.dtype != np.float64 or array.shape != (length,):
                yield f"{where}.{table}.{key} does not hold {length} numbers"
    if len({*state["sums"], *state["train"], *state["eval"]}) > MOST_KEYS:
        yield f"{where} has more than {MOST_KEYS} metrics"


def _append(table: dict[str, list[float]], row: dict[str, float], rows: int) -> None:
    """Add a row to a table, with a new column for each new name; the table then has `rows` rows."""
    for key in row:
        table.setdefault(key, [math.nan] * (rows - 1))
    for key, column in table.items():
        column.append(row.get(key, math.nan))
