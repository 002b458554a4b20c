"""Settings of the trainer: budgets, frequencies and stopping."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import option
from dqn_runner.core.settings import check_settings, setting


class FrequencyUnit(Enum):
    """What the frequencies of a run count."""

    episodes = "episodes"
    steps = "steps"


MOST_SECONDS = 1e7
"""The longest time to wait for an environment or a job; systems cannot wait for any number of seconds."""


@option("trainer", "default")
@dataclass(kw_only=True)
class TrainingConfig:
    """Budgets, and how often to evaluate, save and log."""

    frequency_unit: FrequencyUnit = FrequencyUnit.episodes
    """What the three frequencies count: training episodes, or env steps."""
    max_episodes: int | None = setting(50_000, at_least=1)
    """Stop after this many training episodes; null for no limit."""
    max_steps: int | None = setting(None, at_least=1)
    """Stop after this many env steps; null for no limit. The budget reached first ends the run."""
    max_steps_per_episode: int | None = setting(1_000, at_least=1)
    """Truncate longer episodes, in training and evaluation; null leaves it to the env."""
    eval_frequency: int = setting(100, at_least=1)
    """Episodes or steps from one evaluation to the next."""
    eval_episodes: int = setting(10, at_least=1)
    """Episodes of one evaluation, with the same seeds each time."""
    video_frequency: int | None = setting(None, at_least=1)
    """Episodes or steps from one video of an evaluation episode to the next; null for none."""
    checkpoint_frequency: int = setting(500, at_least=1)
    """Episodes or steps from one numbered checkpoint to the next."""
    keep_last: int = setting(3, at_least=0)
    """Number of numbered checkpoints to keep; best.pt and latest.pt are always kept."""
    log_frequency: int = setting(10, at_least=1)
    """Episodes or steps from one log line to the next."""
    early_stopping: bool = True
    """Stop after `patience` evaluations without an improvement."""
    patience: int = setting(50, at_least=1)
    """Evaluations in a row without an improvement of at least `min_delta`."""
    min_delta: float = setting(0.0, at_least=0)
    """Smallest improvement of the mean return that resets `patience`; with 0, any improvement does."""
    retry_env: bool = True
    """Create an environment again, once, if it raises, and recover its episode from its seed and actions."""
    env_timeout: float | None = setting(None, above=0, at_most=MOST_SECONDS)
    """Seconds that a step, reset or close of an environment may take; null for no limit. With
    `env.vectorization=async` its process is killed, and the environment recovered as by `retry_env`;
    otherwise the run ends, and the same command resumes it from its last checkpoint."""
    use_wandb: bool = False
    """Add Weights & Biases to the loggers, as `logging=[...,wandb]` does."""
    target_return: float | None = None
    """Stop when the mean return of an evaluation reaches it; null never stops."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        check_settings(self)
        if self.max_episodes is None and self.max_steps is None:
            raise UserError("the run would never end; set trainer.max_episodes or trainer.max_steps")

    @property
    def total(self) -> int | None:
        """The budget in the frequency unit; None without one."""
        return self.max_steps if self.frequency_unit is FrequencyUnit.steps else self.max_episodes

    def position(self, step: int, episode: int) -> int:
        """The count of the frequency unit after `step` env steps and `episode` training episodes."""
        return episode if self.frequency_unit is FrequencyUnit.episodes else step

    def fraction_done(self, step: int, episode: int) -> float:
        """The used fraction of the budget that will be reached first, from 0 to 1."""
        steps = step / self.max_steps if self.max_steps else 0.0
        return max(steps, episode / self.max_episodes if self.max_episodes else 0.0)
