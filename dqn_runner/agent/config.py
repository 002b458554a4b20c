"""The options of the DQN agent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.losses.q_learning import QLearning
from dqn_runner.agent.networks.architectures import Auto
from dqn_runner.agent.optimizers import Adam
from dqn_runner.agent.schedules import Fixed
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import option, slot
from dqn_runner.core.types import EnvSpec
from dqn_runner.replay.uniform import UniformReplay


@option("agent", "dqn")
@dataclass(kw_only=True)
class DQNConfig:
    """The options of the DQN agent. All periods are in env steps."""

    state_dim: Any = None
    """Length of the observation vector, or shape of the image; null takes that of the env."""
    action_dim: int | None = None
    """Number of actions; null takes that of the env."""
    normalize_observations: bool | None = None
    """Normalise observations to zero mean and unit variance; null takes the setting of the env."""
    seed: int = 0
    """All random numbers of a run derive from it."""
    gamma: float = 0.99
    """Discount factor per env step."""
    n_step: int = 1
    """Rewards summed before bootstrapping (Sutton & Barto, chapter 7)."""
    learning_rate: float = 1e-3
    """Learning rate of the optimizer."""
    learning_rate_schedule: Any = slot(Fixed)
    batch_size: int = 128
    """Number of transitions in one update."""
    learning_starts: int = 1_000
    """Env steps with uniformly random actions and without learning at the start of a run."""
    train_every: int = 4
    """Env steps between training iterations."""
    gradient_steps: int = 1
    """Updates (gradient steps) in one training iteration."""
    target_update_every: int = 500
    """Env steps between updates of the target network."""
    tau: float = 1.0
    """Fraction by which a target update moves the target network: 1 copies the online network."""
    max_grad_norm: float | None = 10.0
    """Gradients with a larger norm are scaled down to it; null disables clipping."""
    network: Any = slot(Auto)
    loss: Any = slot(QLearning)
    exploration: Any = slot(EpsilonGreedy)
    optimizer: Any = slot(Adam)
    replay: Any = slot(UniformReplay)

    def __post_init__(self) -> None:
        """Validate the settings."""
        for name in ("n_step", "batch_size", "train_every", "gradient_steps", "target_update_every"):
            self._check(name, 1, math.inf)
        for name in ("learning_rate", "learning_starts", "max_grad_norm"):
            self._check(name, 0, math.inf)
        for name in ("gamma", "tau"):
            self._check(name, 0, 1)

    def _check(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is not None and not low <= value <= high:
            bounds = f"at least {low}" if high == math.inf else f"between {low} and {high}"
            raise UserError(f"agent.{name} must be {bounds}, got {value}")

    def spec(self) -> EnvSpec:
        """Shape of observations and number of actions; raises a UserError if one of them is not set."""
        if self.state_dim is None or self.action_dim is None:
            raise UserError("DQNConfig needs state_dim (a length or an image shape) and action_dim")
        shape = (self.state_dim,) if isinstance(self.state_dim, int) else tuple(self.state_dim)
        return EnvSpec(obs_shape=shape, num_actions=self.action_dim)
