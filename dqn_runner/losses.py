"""Losses: each owns the meaning of the network's outputs, for acting and for learning."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from dqn_runner.bootstraps import Backup, Max, pick
from dqn_runner.lazy import torch
from dqn_runner.registry import option, slot
from dqn_runner.types import LossOutput, QFunction, Transition


class Loss(Protocol):
    """What the agent minimises."""

    @property
    def width(self) -> int:
        """Outputs per action that the loss asks of the network."""
        ...

    def q_values(self, outputs: torch.Tensor) -> torch.Tensor:
        """Action values [batch, actions] from network outputs [batch, actions * width].

        With a width of 1 the outputs are the values, and acting takes them as they are.
        """
        ...

    def __call__(self, online: QFunction, target: QFunction, transition: Transition) -> LossOutput:
        """Per-sample loss of one run's batch; no gradient flows through `target`.

        It calls the networks as often as it likes, but always equally often: random numbers are drawn ahead.
        """
        ...


class TDError(Enum):
    """How a TD error becomes a loss."""

    huber = "huber"
    """0.5 * delta**2 up to |delta| = 1, linear beyond: the clipped TD error of Mnih et al. 2015."""
    squared = "squared"
    """delta**2"""


@option("agent/loss", "q_learning")
@dataclass(kw_only=True)
class QLearning:
    """One-step (or n-step) Q-learning with a target network (Mnih et al. 2015, Nature, Algorithm 1)."""

    error: TDError = TDError.huber
    """How a TD error counts: `huber` is the clipped TD error of the Nature paper, `squared` its square."""
    bootstrap: Any = slot(Max)

    @property
    def width(self) -> int:
        """One value per action."""
        return 1

    def q_values(self, outputs: torch.Tensor) -> torch.Tensor:
        """The outputs themselves."""
        return outputs

    def __call__(self, online: QFunction, target: QFunction, transition: Transition) -> LossOutput:
        """Per-sample TD loss; the priority is the absolute TD error."""
        q = pick(online(transition.obs), transition.action)
        with torch.no_grad():
            next_q = target(transition.next_obs)
            backup: Backup = self.bootstrap(lambda: next_q, online, target, transition)
            goal = torch.addcmul(backup.reward, transition.discount, backup.expect(next_q))
            error = (goal - q).abs_()
        if self.error is TDError.huber:
            loss = torch.nn.functional.huber_loss(q, goal, reduction="none")
        else:
            loss = torch.square(goal - q)
        return LossOutput(loss, error, q.detach())
