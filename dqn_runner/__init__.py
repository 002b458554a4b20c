"""dqn_runner: DQN experiments that can be trusted overnight.

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig
"""

from __future__ import annotations

from importlib.metadata import version

from dqn_runner.agent import DQNAgent, DQNConfig
from dqn_runner.trainer import Trainer, TrainingConfig, TrainingStats
from dqn_runner.types import UserError

__version__ = version("dqn_runner")
__all__ = ["DQNAgent", "DQNConfig", "Trainer", "TrainingConfig", "TrainingStats", "UserError"]
