"""QR-DQN: learns the distribution of returns as its quantiles at fixed fractions (taus)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dqn_runner.agent.losses.base import action_values, gather_actions, split_by_action
from dqn_runner.agent.losses.targets import Backup, MaxTarget, TargetRule
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.registry import option, slot
from dqn_runner.core.settings import check_settings, setting
from dqn_runner.core.types import LossOutput, QFunction, Transition


@option("agent/loss", "quantile")
@dataclass(kw_only=True)
class Quantile:
    """QR-DQN: the return's quantiles at midpoints of equal fractions (Dabney et al. 2018a, Algorithm 1)."""

    num_quantiles: int = setting(200, at_least=1, largest=100_000)
    """Number of quantiles of each action's return."""
    kappa: float = setting(1.0, above=0)
    """Threshold of the quantile Huber loss: errors are squared up to it, linear beyond."""
    target: Any = slot(MaxTarget, TargetRule)

    __post_init__ = check_settings

    @property
    def outputs_per_action(self) -> int:
        """One for each quantile."""
        return self.num_quantiles

    def q_values(self, outputs: torch.Tensor) -> torch.Tensor:
        """Means of the quantiles."""
        return split_by_action(outputs, self.num_quantiles).mean(-1)

    def __call__(self, online: QFunction, target: QFunction, transition: Transition) -> LossOutput:
        """Quantile Huber loss; the priority is the absolute difference between the means."""
        outputs = split_by_action(online(transition.obs), self.num_quantiles)
        quantiles = gather_actions(outputs, transition.action)
        taus = (torch.arange(self.num_quantiles, device=outputs.device) + 0.5) / self.num_quantiles
        with torch.no_grad():
            next_quantiles = split_by_action(target(transition.next_obs), self.num_quantiles)
            backup: Backup = self.target(
                lambda: next_quantiles.mean(-1),
                action_values(online, self.q_values),
                action_values(target, self.q_values),
                transition,
            )
            td_target = backup.td_target(next_quantiles, transition.discount)
        return quantile_loss_output(quantiles, taus.expand_as(quantiles), td_target, self.kappa)


def quantile_loss_output(
    quantiles: torch.Tensor, taus: torch.Tensor, td_target: torch.Tensor, kappa: float
) -> LossOutput:
    """The results of a quantile loss; `quantile_huber` explains the arguments."""
    q = quantiles.detach().mean(-1)
    priority = (td_target.mean(-1) - q).abs()
    return LossOutput(quantile_huber(quantiles, taus, td_target, kappa), priority, q)


def quantile_huber(
    quantiles: torch.Tensor, taus: torch.Tensor, td_target: torch.Tensor, kappa: float
) -> torch.Tensor:
    """Loss [batch] of `quantiles` at `taus`, both [batch, n], for samples `td_target` [batch, m].

    Summed over the quantiles, averaged over the samples (Dabney et al. 2018a, Algorithm 1), and divided by
    kappa (2018b, eq. 3). The gradient is given in closed form: autograd would keep five arrays [batch, n, m]
    and take twice the time.
    """
    with torch.no_grad():
        error = td_target.unsqueeze(-2) - quantiles.unsqueeze(-1)  # [batch, n, m]
        tau = taus.unsqueeze(-1)
        slope = torch.where(error < 0, 1 - tau, tau)
        clipped = error.clamp(-kappa, kappa)
        slope.mul_(clipped)
        gradient = slope.mean(-1) / -kappa
        error.sub_(clipped, alpha=0.5)  # clipped * error is now the Huber loss
        value = slope.mul_(error).mean(-1).sum(-1) / kappa
    linear = (gradient * quantiles).sum(-1)
    return value + (linear - linear.detach())
