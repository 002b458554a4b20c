"""Settings of a run's course, and what a run comes to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import option


class FrequencyUnit(Enum):
    """The clock in which frequencies count."""

    episodes = "episodes"
    steps = "steps"


@option("trainer", "default")
@dataclass(kw_only=True)
class TrainingConfig:
    """Budgets, and how often to evaluate, save and log; the frequencies count in `unit`."""

    frequency_unit: FrequencyUnit = FrequencyUnit.episodes
    """The clock of the three frequencies: training episodes, or env steps."""
    max_episodes: int | None = 50_000
    """Stop after this many training episodes; null is no limit."""
    max_steps: int | None = None
    """Stop after this many env steps; null is no limit. The budget reached first ends the run."""
    max_steps_per_episode: int | None = 1_000
    """Truncate longer episodes, in training and evaluation; null leaves it to the env."""
    eval_frequency: int = 100
    """Evaluate every so many episodes or steps."""
    eval_episodes: int = 10
    """Episodes of one evaluation; always the same seeds."""
    checkpoint_frequency: int = 500
    """Save every so many episodes or steps."""
    keep_last: int = 3
    """Numbered checkpoints to keep; best.pt and latest.pt always stay."""
    log_frequency: int = 10
    """Log every so many episodes or steps."""
    early_stopping: bool = True
    """Stop after `patience` evaluations without an improvement."""
    patience: int = 50
    """Evaluations in a row without an improvement of at least `min_delta`."""
    min_delta: float = 0.0
    """Improvement of the mean return that counts for `patience`; any larger one with 0."""
    retry_env: bool = True
    """Make an environment that raises again, once, and bring it back by its seed and actions."""
    target_return: float | None = None
    """Stop when an evaluation's mean return reaches it; null never."""

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        self.frequency_unit = FrequencyUnit(self.frequency_unit)
        names = (
            "eval_frequency",
            "eval_episodes",
            "checkpoint_frequency",
            "log_frequency",
            "patience",
        )
        for name in (*names, "max_episodes", "max_steps", "max_steps_per_episode"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"trainer.{name} must be at least 1, got {value}")
        if self.max_episodes is None and self.max_steps is None:
            raise UserError("the run would never end; set trainer.max_episodes or trainer.max_steps")
        if self.keep_last < 0 or self.min_delta < 0:
            raise UserError("trainer.keep_last and trainer.min_delta must not be negative")

    @property
    def total(self) -> int | None:
        """The budget in `unit`."""
        return self.max_steps if self.frequency_unit is FrequencyUnit.steps else self.max_episodes

    def share_done(self, step: int, episode: int) -> float:
        """How much of the budget that will be reached first is used up, from 0 to 1."""
        steps = step / self.max_steps if self.max_steps else 0.0
        return max(steps, episode / self.max_episodes if self.max_episodes else 0.0)

    def budget_ends(self, step: int, episode: int) -> str | None:
        """Why the run is over at this point, if a budget is reached."""
        if self.max_steps is not None and step >= self.max_steps:
            return f"trainer.max_steps={self.max_steps} reached"
        if self.max_episodes is not None and episode >= self.max_episodes:
            return f"trainer.max_episodes={self.max_episodes} reached"
        return None

    def evaluation_ends(self, mean: float, waited: int) -> str | None:
        """Why the run is over after an evaluation of this mean return, the `waited`th without improvement."""
        if self.target_return is not None and mean >= self.target_return:
            return f"evaluation mean {mean:g} reached trainer.target_return={self.target_return:g}"
        if self.early_stopping and waited >= self.patience:
            return f"no improvement in trainer.patience={self.patience} evaluations"
        return None

    def stopping(self) -> dict[str, Any]:
        """The fields that decide when a run is over."""
        names = (
            "max_episodes",
            "max_steps",
            "early_stopping",
            "patience",
            "min_delta",
            "target_return",
        )
        return {name: getattr(self, name) for name in names}
