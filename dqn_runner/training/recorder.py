"""What a run reports: records for the loggers, the history in metrics.json, and times."""

from __future__ import annotations

import math
from typing import Any

from dqn_runner.core.records import Record
from dqn_runner.core.state import State
from dqn_runner.loggers.logger_group import LoggerGroup
from dqn_runner.training.collector import Episode
from dqn_runner.training.evaluator import Evaluation
from dqn_runner.training.metrics import Metrics
from dqn_runner.training.stats import TrainingStats
from dqn_runner.training.stopping import EarlyStopping
from dqn_runner.training.stopwatch import Stopwatch


class Recorder:
    """Counts episodes, keeps the history of the run and sends records to its loggers."""

    def __init__(self, loggers: LoggerGroup) -> None:
        """`loggers` are opened and closed by the run directory."""
        self.metrics = Metrics()
        self.episode = 0
        """Training episodes that ended."""
        self._loggers = loggers
        self._stopwatch = Stopwatch()
        self._elapsed_before = 0.0

    def start(self, step: int) -> None:
        """Start the clock of this session at env step `step`."""
        self._stopwatch.start(self._elapsed_before, step)

    def add_episode(self, episode: Episode) -> None:
        """Record a finished training episode."""
        self.episode += 1
        self.metrics.add_episode(episode)
        values = {"train/return": episode.episode_return, "train/length": float(episode.length)}
        self._loggers.write(Record("episode", episode.step, self.episode, values))

    def add_evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Record an evaluation at env step `step`."""
        values = self.metrics.add_evaluation(step, self.episode, evaluation)
        self._loggers.write(Record("eval", step, self.episode, values))

    def log(self, step: int, epsilon: float, fraction_done: float) -> None:
        """Record the means since the last call, at env step `step`; `fraction_done` is of the budget."""
        values = self.metrics.flush(step, self.episode, epsilon)
        values["time/elapsed"] = self._stopwatch.elapsed
        values["time/eta"] = self._stopwatch.eta(fraction_done)
        if math.isfinite(rate := self._stopwatch.lap(step)):
            values["time/steps_per_second"] = rate
        self._loggers.write(Record("train", step, self.episode, values))

    def report(
        self, step: int, best: EarlyStopping, finished: str | None, fraction_done: float
    ) -> dict[str, Any]:
        """The content of metrics.json; `finished` is why the run ended, None while it has not."""
        eta = self._stopwatch.eta(fraction_done)
        return {
            "env_steps": step,
            "num_episodes": self.episode,
            "best": {"return_mean": best.best_mean, "step": best.best_step},
            "last": self.metrics.last_evaluation(),
            "finished": finished,
            "time": {"training_seconds": self._stopwatch.elapsed, "eta_seconds": eta},
            **self.metrics.history(),
        }

    def stats(self, step: int, best: EarlyStopping, reason: str, pruned: bool) -> TrainingStats:
        """The result of a run that ended at env step `step` for `reason`."""
        best_mean = best.best_mean if math.isfinite(best.best_mean) else math.nan
        return TrainingStats(
            reason=reason,
            pruned=pruned,
            steps=step,
            episodes=self.episode,
            best_mean=best_mean,
            best_step=best.best_step,
            training_time=self._stopwatch.elapsed,
            objective=self.metrics.recent_return() if math.isnan(best_mean) else best_mean,
            history=self.metrics.history(),
        )

    def state_dict(self) -> State:
        """Episodes and seconds so far. The history and the loggers are part of the progress state."""
        return {"episode": self.episode, "elapsed": self._stopwatch.elapsed}

    def load_state_dict(self, state: State) -> None:
        """Restore the counts; `start` continues the clock."""
        self.episode = state["episode"]
        self._elapsed_before = state["elapsed"]
