"""Q-learning: one output per action, its value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from dqn_runner.agent.losses.base import gather_actions
from dqn_runner.agent.losses.targets import Backup, MaxTarget, TargetRule
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.registry import option, slot
from dqn_runner.core.settings import check_settings
from dqn_runner.core.types import LossOutput, QFunction, Transition


class TDError(Enum):
    """The loss of a TD error delta."""

    huber = "huber"
    """0.5 * delta**2 up to |delta| = 1, linear beyond: the clipped TD error of Mnih et al. 2015."""
    squared = "squared"
    """delta**2"""


@option("agent/loss", "q_learning")
@dataclass(kw_only=True)
class QLearning:
    """One-step or n-step Q-learning with a target network (Mnih et al. 2015, Nature, Algorithm 1)."""

    error: TDError = TDError.huber
    """Loss of a TD error: `huber` is the clipped TD error of the Nature paper, `squared` its square."""
    target: Any = slot(MaxTarget, TargetRule)

    __post_init__ = check_settings

    @property
    def outputs_per_action(self) -> int:
        """One: the action's value."""
        return 1

    def q_values(self, outputs: torch.Tensor) -> torch.Tensor:
        """The outputs themselves."""
        return outputs

    def __call__(self, online: QFunction, target: QFunction, transition: Transition) -> LossOutput:
        """Per-sample TD loss; the priority is the absolute TD error."""
        q = gather_actions(online(transition.obs), transition.action)
        with torch.no_grad():
            next_q = target(transition.next_obs)
            backup: Backup = self.target(lambda: next_q, online, target, transition)
            td_target = backup.td_target(next_q, transition.discount)
            error = (td_target - q).abs_()
        if self.error is TDError.huber:
            loss = torch.nn.functional.huber_loss(q, td_target, reduction="none")
        else:
            loss = torch.square(td_target - q)
        return LossOutput(loss, error, q.detach())
