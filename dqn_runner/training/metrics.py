"""Metrics of a run: means between log lines, and the whole history."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from dqn_runner.agent.learner import UPDATE_METRICS
from dqn_runner.core.state import State
from dqn_runner.training.collector import Episode
from dqn_runner.training.evaluator import Evaluation
from dqn_runner.training.history import History
from dqn_runner.training.user_metrics import PREFIX, UserMetrics

RECENT = 100
"""Training episodes in `train/return_mean_100`."""

TRAIN_KEYS = ("return_mean_100", "length_mean_100", "loss", "q_mean", "grad_norm", "epsilon")
EVAL_KEYS = ("return_mean", "return_std", "return_min", "return_max", "length_mean")
METRIC_KEYS = (
    "train/return",
    "train/length",
    *(f"train/{key}" for key in TRAIN_KEYS),
    *(f"eval/{key}" for key in EVAL_KEYS),
    "time/elapsed",
    "time/eta",
    "time/steps_per_second",
)
"""Every key that the values of a record may have, beside those of the environment (`user_metrics`)."""


class Metrics:
    """Aggregates metrics between log lines, and keeps the history."""

    def __init__(self) -> None:
        """Empty history."""
        self.last: list[float] | None = None
        """Statistics of the last update in this process."""
        self._sums = [0.0] * len(UPDATE_METRICS)
        self._updates = 0
        self._recent: deque[Episode] = deque(maxlen=RECENT)
        self.episodes = History({"step": "q", "return": "d", "length": "q"})
        self.train = History({"step": "q", "episode": "q", **dict.fromkeys(TRAIN_KEYS, "d")})
        self.eval: dict[str, list[Any]] = {k: [] for k in ("step", "episode", "returns", *EVAL_KEYS)}
        self.user = UserMetrics()

    def add_update(self, statistics: list[float]) -> None:
        """Statistics of one update, in the order of UPDATE_METRICS."""
        self.last, sums = statistics, self._sums
        for index, value in enumerate(statistics):
            sums[index] += value
        self._updates += 1

    def add_episode(self, episode: Episode) -> None:
        """Add a finished training episode."""
        self._recent.append(episode)
        self.episodes.append(episode.step, episode.episode_return, episode.length)
        self.user.add_episode(episode.metrics)

    def add_evaluation(self, step: int, episode: int, evaluation: Evaluation) -> dict[str, float]:
        """Add an evaluation; return its values by metric key."""
        summary = evaluation.summary()
        row = {"step": step, "episode": episode, "returns": evaluation.returns, **summary}
        for name, column in self.eval.items():
            column.append(row[name])
        summary |= self.user.add_evaluation(evaluation.metrics, len(self.eval["step"]))
        return {f"eval/{key}": value for key, value in summary.items()}

    def flush(self, step: int, episode: int, epsilon: float) -> dict[str, float]:
        """Means since the last call, by metric key; a mean of nothing is left out."""
        values: dict[str, float] = {"epsilon": epsilon}
        if self._recent:
            values["return_mean_100"] = float(np.mean([e.episode_return for e in self._recent]))
            values["length_mean_100"] = float(np.mean([e.length for e in self._recent]))
        if self._updates:
            values.update(zip(UPDATE_METRICS, (total / self._updates for total in self._sums), strict=True))
        self._sums, self._updates = [0.0] * len(UPDATE_METRICS), 0
        self.train.append(step, episode, *(values.get(key, float("nan")) for key in TRAIN_KEYS))
        values |= self.user.flush(len(self.train))
        return {f"train/{key}": value for key, value in values.items()}

    def recent_return(self) -> float:
        """Mean return of the last episodes; NaN before the first one ended."""
        return float(np.mean([e.episode_return for e in self._recent])) if self._recent else float("nan")

    def last_evaluation(self) -> dict[str, Any]:
        """Mean return and env step of the last evaluation; None before the first one."""
        return {key: self.eval[key][-1] if self.eval[key] else None for key in ("return_mean", "step")}

    def history(self) -> dict[str, Any]:
        """All metrics since the start of the run, for metrics.json."""
        train = self.train.lists() | {f"{PREFIX}{key}": column for key, column in self.user.train.items()}
        evaluations = self.eval | {f"{PREFIX}{key}": column for key, column in self.user.eval.items()}
        return {"episodes": self.episodes.lists(), "train": train, "evaluations": evaluations}

    def state_dict(self) -> State:
        """The history, and the sums of the open log interval."""
        return {
            "sums": list(self._sums),
            "updates": self._updates,
            "recent": [[e.step, e.episode_return, e.length] for e in self._recent],
            "episodes": self.episodes.snapshot(),
            "train": self.train.snapshot(),
            "eval": {name: list(values) for name, values in self.eval.items()},
            "user": self.user.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore both."""
        self._sums = list(state["sums"])
        self._updates = state["updates"]
        self._recent = deque((Episode(*episode) for episode in state["recent"]), maxlen=RECENT)
        self.episodes.load(state["episodes"])
        self.train.load(state["train"])
        self.eval = {name: list(values) for name, values in state["eval"].items()}
        self.user.load_state_dict(state["user"])
