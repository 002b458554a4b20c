"""dqn_runner: DQN experiments that can be trusted overnight.

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig
"""

from __future__ import annotations

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.agent.config import DQNConfig
from dqn_runner.core.exceptions import UserError
from dqn_runner.inference.load import load_agent
from dqn_runner.inference.trained_agent import TrainedAgent
from dqn_runner.training.config import TrainingConfig
from dqn_runner.training.stats import TrainingStats
from dqn_runner.training.trainer import Trainer

__version__ = "0.1.0"
__all__ = [
    "DQNAgent",
    "DQNConfig",
    "TrainedAgent",
    "Trainer",
    "TrainingConfig",
    "TrainingStats",
    "UserError",
    "load_agent",
]
