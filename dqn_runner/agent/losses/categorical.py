"""C51: learns the distribution of returns as probabilities of fixed returns, the atoms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dqn_runner.agent.losses.base import action_values, adds_at_indices, gather_actions, split_by_action
from dqn_runner.agent.losses.targets import Backup, MaxTarget, TargetRule
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.registry import option, slot
from dqn_runner.core.settings import check_settings, setting
from dqn_runner.core.types import LossOutput, QFunction, Transition

_MOST_COMPARED = 256
"""The most atoms of which `project` compares each with all: that needs memory for [batch, atoms, atoms]."""


@option("agent/loss", "categorical")
@dataclass(kw_only=True)
class Categorical:
    """C51: a probability for each of fixed returns, learned by cross-entropy (Bellemare et al. 2017)."""

    num_atoms: int = setting(51, at_least=2, largest=100_000)
    """Number of atoms: evenly spaced returns that have a probability."""
    v_min: float = setting(-10.0, at_least=-1e30)
    """Lowest atom; lower returns are projected onto it."""
    v_max: float = setting(10.0, at_most=1e30)
    """Highest atom; higher returns are projected onto it."""
    target: Any = slot(MaxTarget, TargetRule)

    def __post_init__(self) -> None:
        """Validate the settings."""
        check_settings(self)
        if self.v_min >= self.v_max:
            raise UserError(
                f"agent.loss.v_min must be below v_max, got v_min={self.v_min} and v_max={self.v_max}"
            )

    @property
    def outputs_per_action(self) -> int:
        """One logit for each atom."""
        return self.num_atoms

    def q_values(self, outputs: torch.Tensor) -> torch.Tensor:
        """Means of the distributions."""
        return torch.softmax(self._logits(outputs), -1) @ self.support(outputs.device)

    def support(self, device: torch.device) -> torch.Tensor:
        """The atoms [num_atoms]."""
        return torch.linspace(self.v_min, self.v_max, self.num_atoms, device=device)

    def __call__(self, online: QFunction, target: QFunction, transition: Transition) -> LossOutput:
        """Cross-entropy with the projected TD target; the priority is the KL divergence from it."""
        support = self.support(transition.reward.device)
        logits = gather_actions(self._logits(online(transition.obs)), transition.action)
        log_p = torch.log_softmax(logits, -1)
        with torch.no_grad():
            next_p = torch.softmax(self._logits(target(transition.next_obs)), -1)
            backup: Backup = self.target(
                lambda: next_p @ support,
                action_values(online, self.q_values),
                action_values(target, self.q_values),
                transition,
            )
            td_target = self.project(backup.expectation(next_p), backup.reward, transition.discount)
        loss = -(td_target * log_p).sum(-1)
        with torch.no_grad():
            divergence = (loss + torch.xlogy(td_target, td_target).sum(-1)).clamp(min=0.0)
            q = log_p.exp() @ support
        return LossOutput(loss, divergence, q)

    def project(self, p: torch.Tensor, reward: torch.Tensor, discount: torch.Tensor) -> torch.Tensor:
        """Project the distribution of reward + discount * atom onto the atoms (Bellemare et al. 2017, eq. 7).

        `p` [batch, atoms] are the probabilities of the atoms. The probability of each shifted atom is divided
        between the two nearest atoms; a return outside the support counts as the nearest end of the support.
        """
        shifted = reward.unsqueeze(-1) + discount.unsqueeze(-1) * self.support(p.device)
        spacing = (self.v_max - self.v_min) / (self.num_atoms - 1)
        position = ((shifted - self.v_min) / spacing).clamp(0, self.num_atoms - 1)
        lower = position.long().clamp(0, self.num_atoms - 2)  # lower + 1 is an atom, even if position is NaN
        fraction = position - lower
        if adds_at_indices(p) or self.num_atoms > _MOST_COMPARED:
            projected = torch.zeros_like(p).scatter_add(-1, lower, p * (1 - fraction))
            return projected.scatter_add(-1, lower + 1, p * fraction)
        atoms = torch.arange(self.num_atoms, device=p.device)
        to_lower, to_upper = lower.unsqueeze(-1) == atoms, (lower + 1).unsqueeze(-1) == atoms
        moved = torch.where(to_lower, (p * (1 - fraction)).unsqueeze(-1), 0.0)
        return (moved + torch.where(to_upper, (p * fraction).unsqueeze(-1), 0.0)).sum(-2)

    def _logits(self, outputs: torch.Tensor) -> torch.Tensor:
        return split_by_action(outputs, self.num_atoms)
