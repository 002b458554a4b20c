"""dqn_runner: DQN experiments that can be trusted overnight.

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig
"""

from __future__ import annotations

from dqn_runner.agent import DQNAgent, DQNConfig
from dqn_runner.trainer import Trainer
from dqn_runner.training import TrainingConfig, TrainingStats
from dqn_runner.types import UserError

__version__ = "0.1.0"
__all__ = ["DQNAgent", "DQNConfig", "Trainer", "TrainingConfig", "TrainingStats", "UserError"]
