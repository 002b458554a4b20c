"""The DQN agent: values states, chooses actions, learns from batches."""

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
    """The algorithm: what it learns from, how, and how often. All periods are in env steps."""

    state_dim: Any = None
    """Length of the observation vector, or the shape of the image; null takes the env's."""
    action_dim: int | None = None
    """Number of actions; null takes the env's."""
    normalize_observations: bool | None = None
    """Bring observations to zero mean and unit variance; null takes the env's setting."""
    seed: int = 0
    """Everything random in a run derives from it."""
    gamma: float = 0.99
    """Discount per env step."""
    n_step: int = 1
    """Rewards summed before bootstrapping (Sutton & Barto, chapter 7)."""
    learning_rate: float = 1e-3
    """Step size of the optimizer."""
    learning_rate_schedule: Any = slot(Fixed)
    batch_size: int = 128
    """Transitions in one update."""
    learning_starts: int = 1_000
    """Env steps with uniformly random actions and no learning, at the start."""
    train_every: int = 4
    """Env steps from one round of learning to the next."""
    gradient_steps: int = 1
    """Updates in one round of learning."""
    target_update_every: int = 500
    """Env steps from one target update to the next."""
    tau: float = 1.0
    """How far the target moves: 1 copies the online network, less is a soft update."""
    max_grad_norm: float | None = 10.0
    """Longer gradients are scaled down to this norm; null never."""
    network: Any = slot(Auto)
    loss: Any = slot(QLearning)
    exploration: Any = slot(EpsilonGreedy)
    optimizer: Any = slot(Adam)
    replay: Any = slot(UniformReplay)

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
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
        """Shapes of observations and actions."""
        if self.state_dim is None or self.action_dim is None:
            raise UserError("DQNConfig needs state_dim (a length or an image shape) and action_dim")
        shape = (self.state_dim,) if isinstance(self.state_dim, int) else tuple(self.state_dim)
        return EnvSpec(obs_shape=shape, num_actions=self.action_dim)
