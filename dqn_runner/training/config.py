"""Settings of the trainer: budgets, frequencies and stopping."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import option


class FrequencyUnit(Enum):
    """What the frequencies of a run count."""

    episodes = "episodes"
    steps = "steps"


@option("trainer", "default")
@dataclass(kw_only=True)
class TrainingConfig:
    """Budgets, and how often to evaluate, save and log."""

    frequency_unit: FrequencyUnit = FrequencyUnit.episodes
    """What the three frequencies count: training episodes, or env steps."""
    max_episodes: int | None = 50_000
    """Stop after this many training episodes; null for no limit."""
    max_steps: int | None = None
    """Stop after this many env steps; null for no limit. The budget reached first ends the run."""
    max_steps_per_episode: int | None = 1_000
    """Truncate longer episodes, in training and evaluation; null leaves it to the env."""
    eval_frequency: int = 100
    """Episodes or steps from one evaluation to the next."""
    eval_episodes: int = 10
    """Episodes of one evaluation, with the same seeds each time."""
    checkpoint_frequency: int = 500
    """Episodes or steps from one numbered checkpoint to the next."""
    keep_last: int = 3
    """Number of numbered checkpoints to keep; best.pt and latest.pt are always kept."""
    log_frequency: int = 10
    """Episodes or steps from one log line to the next."""
    early_stopping: bool = True
    """Stop after `patience` evaluations without an improvement."""
    patience: int = 50
    """Evaluations in a row without an improvement of at least `min_delta`."""
    min_delta: float = 0.0
    """Smallest improvement of the mean return that resets `patience`; with 0, any improvement does."""
    retry_env: bool = True
    """Create an environment that raises again, once, and recover its episode from its seed and actions."""
    env_timeout: float | None = None
    """Seconds that a step or reset of an environment may take; null for no limit. With
    `env.vectorization=async` its process is killed, and the environment recovered as by `retry_env`;
    otherwise the run ends, and the same command resumes it from its last checkpoint."""
    use_wandb: bool = False
    """Add Weights & Biases to the loggers, as `logging=[...,wandb]` does."""
    target_return: float | None = None
    """Stop when the mean return of an evaluation reaches it; null never stops."""

    def __post_init__(self) -> None:
        """Validate the settings."""
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
        if self.env_timeout is not None and not 0 < self.env_timeout < math.inf:
            raise UserError(
                f"trainer.env_timeout must be a positive number of seconds, got {self.env_timeout}"
            )
        if self.keep_last < 0 or self.min_delta < 0:
            raise UserError("trainer.keep_last and trainer.min_delta must not be negative")

    @property
    def total(self) -> int | None:
        """The budget in the frequency unit; None without one."""
        return self.max_steps if self.frequency_unit is FrequencyUnit.steps else self.max_episodes

    def fraction_done(self, step: int, episode: int) -> float:
        """The used fraction of the budget that will be reached first, from 0 to 1."""
        steps = step / self.max_steps if self.max_steps else 0.0
        return max(steps, episode / self.max_episodes if self.max_episodes else 0.0)
