"""Losses that learn the distribution of returns: on fixed atoms, by quantiles, by sampled quantiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dqn_runner.agent.losses.base import action_values, per_action
from dqn_runner.agent.losses.targets import Backup, MaxTarget, gather_actions
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.registry import option, slot
from dqn_runner.core.types import LossOutput, QFunction, Transition


@option("agent/loss", "quantile")
@dataclass(kw_only=True)
class Quantile:
    """QR-DQN: the return's quantiles at the middles of equal taus (Dabney et al. 2018a, Algorithm 1)."""

    num_quantiles: int = 200
    """Quantiles of each action's return."""
    kappa: float = 1.0
    """Quantile errors are squared up to it, linear beyond."""
    target: Any = slot(MaxTarget)

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        _at_least(1, "agent.loss.num_quantiles", self.num_quantiles)
        _check_kappa(self.kappa)

    @property
    def outputs_per_action(self) -> int:
        """One output for each quantile."""
        return self.num_quantiles

    def q_values(self, outputs: torch.Tensor) -> torch.Tensor:
        """Means of the quantiles."""
        return per_action(outputs, self.num_quantiles).mean(-1)

    def __call__(self, online: QFunction, target: QFunction, transition: Transition) -> LossOutput:
        """Quantile Huber loss; the priority is the absolute difference of the means."""
        quantiles = gather_actions(per_action(online(transition.obs), self.num_quantiles), transition.action)
        taus = (torch.arange(self.num_quantiles) + 0.5) / self.num_quantiles
        with torch.no_grad():
            next_quantiles = per_action(target(transition.next_obs), self.num_quantiles)
            values = action_values(self.q_values)
            backup: Backup = self.target(
                lambda: next_quantiles.mean(-1), values(online), values(target), transition
            )
            td_target = _shift(backup.expect(next_quantiles), backup.reward, transition.discount)
        return _quantile_output(quantiles, taus.expand_as(quantiles), td_target, self.kappa)


@option("agent/loss", "implicit_quantile")
@dataclass(kw_only=True)
class ImplicitQuantile:
    """IQN: the return's quantiles at taus drawn anew each time (Dabney et al. 2018b, section 3).

    The network needs agent.network.cosine_embedding_dim, by which it takes taus.
    """

    num_tau_samples: int = 64
    """Fractions at which the online network is learned, per sample (N)."""
    num_tau_prime_samples: int = 64
    """Fractions at which the target network is asked, per sample (N')."""
    num_quantile_samples: int = 32
    """Fractions whose mean is an action's value (K): drawn in learning, evenly spaced in acting."""
    kappa: float = 1.0
    """Quantile errors are squared up to it, linear beyond."""
    target: Any = slot(MaxTarget)

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        for name in ("num_tau_samples", "num_tau_prime_samples", "num_quantile_samples"):
            _at_least(1, f"agent.loss.{name}", getattr(self, name))
        _check_kappa(self.kappa)

    @property
    def outputs_per_action(self) -> int:
        """What a network gives that is not told which taus to take."""
        return self.num_quantile_samples

    def q_values(self, outputs: torch.Tensor) -> torch.Tensor:
        """Means over the taus."""
        return per_action(outputs, self.num_quantile_samples).mean(-1)

    def __call__(self, online: QFunction, target: QFunction, transition: Transition) -> LossOutput:
        """Quantile Huber loss; the priority is the absolute difference of the means."""
        taus = online.sample_taus(self.num_tau_samples)
        outputs = per_action(online(transition.obs, taus), self.num_tau_samples)
        quantiles = gather_actions(outputs, transition.action)

        with torch.no_grad():
            target_taus = target.sample_taus(self.num_tau_prime_samples)
            next_quantiles = per_action(target(transition.next_obs, target_taus), self.num_tau_prime_samples)
            values = action_values(self.q_values, self.num_quantile_samples)
            backup: Backup = self.target(
                lambda: values(target)(transition.next_obs), values(online), values(target), transition
            )
            td_target = _shift(backup.expect(next_quantiles), backup.reward, transition.discount)
        return _quantile_output(quantiles, taus, td_target, self.kappa)


def quantile_huber(
    quantiles: torch.Tensor, taus: torch.Tensor, td_target: torch.Tensor, kappa: float
) -> torch.Tensor:
    """Loss [batch] of `quantiles` at `taus`, both [batch, n], against samples `td_target` [batch, m].

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


def _quantile_output(
    quantiles: torch.Tensor, taus: torch.Tensor, td_target: torch.Tensor, kappa: float
) -> LossOutput:
    q = quantiles.detach().mean(-1)
    priority = (td_target.mean(-1) - q).abs()
    return LossOutput(quantile_huber(quantiles, taus, td_target, kappa), priority, q)


def _shift(outputs: torch.Tensor, reward: torch.Tensor, discount: torch.Tensor) -> torch.Tensor:
    """Samples of the return [batch, n] one step earlier."""
    return torch.addcmul(reward.unsqueeze(-1), discount.unsqueeze(-1), outputs)


def _at_least(low: int, name: str, value: int) -> None:
    if value < low:
        raise UserError(f"{name} must be at least {low}, got {value}")


def _check_kappa(kappa: float) -> None:
    if not 0 < kappa < math.inf:
        raise UserError(f"agent.loss.kappa must be a positive number, got {kappa}")
