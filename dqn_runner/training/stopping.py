"""When a run is over: budgets, target return and early stopping."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from dqn_runner.core.state import State
from dqn_runner.training.callbacks import Run, StopReason
from dqn_runner.training.config import TrainingConfig
from dqn_runner.training.evaluator import Evaluation

LIMITS = ("max_episodes", "max_steps", "early_stopping", "patience", "min_delta", "target_return")
"""The settings of the trainer that decide when a run is over."""


@dataclass
class EarlyStopping:
    """The best evaluation so far, and how many evaluations brought no improvement."""

    best_mean: float = -math.inf
    best_step: int = 0
    baseline: float = -math.inf
    """The mean return that an evaluation must exceed by `min_delta` to count as an improvement."""
    bad_evals: int = 0
    """Evaluations in a row without an improvement."""

    def update(self, mean: float, step: int, min_delta: float) -> bool:
        """Count an evaluation at env step `step`; return whether it is the best so far. NaN never is."""
        self.bad_evals += 1
        if mean > self.baseline and mean >= self.baseline + min_delta:
            self.baseline, self.bad_evals = mean, 0
        if not mean > self.best_mean:
            return False
        self.best_mean, self.best_step = mean, step
        return True

    def state_dict(self) -> State:
        """The best evaluation and the patience used so far."""
        return dataclasses.asdict(self)

    def load_state_dict(self, state: State) -> None:
        """Restore both."""
        vars(self).update(state)


@dataclass(frozen=True)
class ProgressState:
    """What the events of a run change beside training itself.

    A finished run keeps the state from before its final evaluation. If its budget is raised later, it
    continues from there, as if it had not ended.
    """

    last_event: int
    """Position (episodes or env steps) up to which events were handled."""
    early_stopping: State
    metrics: State
    loggers: State
    callbacks: State

    def state_dict(self) -> State:
        """The fields by name; the states in them are not copied."""
        return dict(vars(self))


@dataclass(frozen=True)
class FinishedRun:
    """Why a run ended, under which limits, and its progress before the final evaluation."""

    reason: str
    pruned: bool
    limits: dict[str, Any]
    """The values of LIMITS, and the settings of the callbacks, that ended the run."""
    before: ProgressState

    def state_dict(self) -> State:
        """The fields by name."""
        return {**vars(self), "before": self.before.state_dict()}

    @classmethod
    def from_state(cls, state: State) -> FinishedRun:
        """The inverse of `state_dict`."""
        before = ProgressState(**state["before"])
        return cls(state["reason"], state["pruned"], state["limits"], before)


class Stopping:
    """Decides when a run is over; a callback itself, the first that is called for an evaluation."""

    def __init__(self, config: TrainingConfig, callbacks: Any, prunes: bool) -> None:
        """`callbacks` are the settings of the callbacks: a run that one of them ended continues with others.

        `prunes` says whether the run has a pruner.
        """
        self._config = config
        self._callbacks = callbacks
        self._prunes = prunes
        self.early_stopping = EarlyStopping()

    def check_budget(self, step: int, episode: int) -> StopReason | None:
        """The budget that is used up after `step` env steps and `episode` training episodes, if one is."""
        config = self._config
        if config.max_steps is not None and step >= config.max_steps:
            return StopReason(f"trainer.max_steps={config.max_steps} reached")
        if config.max_episodes is not None and episode >= config.max_episodes:
            return StopReason(f"trainer.max_episodes={config.max_episodes} reached")
        return None

    def on_evaluation(self, run: Run, evaluation: Evaluation) -> None:
        """End the run if an evaluation, already counted, reached the target, or patience is used up."""
        config = self._config
        if config.target_return is not None and evaluation.mean >= config.target_return:
            target = config.target_return
            run.request_stop(f"evaluation mean {evaluation.mean:g} reached trainer.target_return={target:g}")
        elif config.early_stopping and self.early_stopping.bad_evals >= config.patience:
            run.request_stop(f"no improvement in trainer.patience={config.patience} evaluations")

    def finish(self, reason: StopReason, before: ProgressState) -> FinishedRun:
        """The record of a run that ends for `reason`."""
        return FinishedRun(reason.text, reason.pruned, self._limits(), before)

    def still_ends(self, finished: FinishedRun) -> bool:
        """Whether a run that was finished stays so: under the same limits, or because it was pruned."""
        return self._prunes if finished.pruned else finished.limits == self._limits()

    def _limits(self) -> dict[str, Any]:
        limits = {name: getattr(self._config, name) for name in LIMITS}
        return {**limits, "callbacks": self._callbacks}
