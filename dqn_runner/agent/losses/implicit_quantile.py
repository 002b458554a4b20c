"""IQN: learns the distribution of returns as its quantiles at random fractions (taus)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dqn_runner.agent.losses.base import action_values, gather_actions, split_by_action
from dqn_runner.agent.losses.quantile import quantile_loss_output
from dqn_runner.agent.losses.targets import Backup, MaxTarget, TargetRule
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.registry import option, slot
from dqn_runner.core.settings import check_settings, setting
from dqn_runner.core.types import LossOutput, QFunction, Transition


@option("agent/loss", "implicit_quantile")
@dataclass(kw_only=True)
class ImplicitQuantile:
    """IQN: quantiles of the return at random taus, new in every update (Dabney et al. 2018b, section 3).

    The network needs agent.network.cosine_embedding_dim to take taus as inputs.
    """

    num_tau_samples: int = setting(64, at_least=1, largest=100_000)
    """Taus per sample for the online network (N)."""
    num_tau_prime_samples: int = setting(64, at_least=1, largest=100_000)
    """Taus per sample for the target network (N')."""
    num_quantile_samples: int = setting(32, at_least=1, largest=100_000)
    """Taus whose mean quantile is an action's value (K): random in learning, evenly spaced in acting."""
    kappa: float = setting(1.0, above=0)
    """Threshold of the quantile Huber loss: errors are squared up to it, linear beyond."""
    target: Any = slot(MaxTarget, TargetRule)

    __post_init__ = check_settings

    @property
    def outputs_per_action(self) -> int:
        """Number of quantiles that the network computes when it is called without taus, as in acting."""
        return self.num_quantile_samples

    def q_values(self, outputs: torch.Tensor) -> torch.Tensor:
        """Means of the quantiles."""
        return split_by_action(outputs, self.num_quantile_samples).mean(-1)

    def __call__(self, online: QFunction, target: QFunction, transition: Transition) -> LossOutput:
        """Quantile Huber loss; the priority is the absolute difference between the means."""
        taus = online.sample_taus(self.num_tau_samples)
        outputs = split_by_action(online(transition.obs, taus), self.num_tau_samples)
        quantiles = gather_actions(outputs, transition.action)

        with torch.no_grad():
            target_taus = target.sample_taus(self.num_tau_prime_samples)
            next_outputs = target(transition.next_obs, target_taus)
            next_quantiles = split_by_action(next_outputs, self.num_tau_prime_samples)
            online_q = action_values(online, self.q_values, self.num_quantile_samples)
            target_q = action_values(target, self.q_values, self.num_quantile_samples)
            backup: Backup = self.target(
                lambda: target_q(transition.next_obs), online_q, target_q, transition
            )
            td_target = backup.td_target(next_quantiles, transition.discount)
        return quantile_loss_output(quantiles, taus, td_target, self.kappa)
