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


@option("agent/loss", "categorical")
@dataclass(kw_only=True)
class Categorical:
    """C51: a probability for each of fixed returns, learned by cross-entropy (Bellemare et al. 2017)."""

    num_atoms: int = 51
    """Returns that have a probability, evenly spaced."""
    v_min: float = -10.0
    """Lowest of them; returns below it cannot be told apart."""
    v_max: float = 10.0
    """Highest of them."""
    target: Any = slot(MaxTarget)

    def __post_init__(self) -> None:
        """Refuse a support without outputs_per_action."""
        if self.num_atoms < 2 or not -math.inf < self.v_min < self.v_max < math.inf:
            raise UserError(
                "agent.loss needs num_atoms of at least 2 and a finite v_min below v_max; got "
                f"num_atoms={self.num_atoms}, v_min={self.v_min}, v_max={self.v_max}"
            )

    @property
    def outputs_per_action(self) -> int:
        """One logit for each atom."""
        return self.num_atoms

    def q_values(self, outputs: torch.Tensor) -> torch.Tensor:
        """Means of the distributions."""
        return torch.softmax(self._atoms(outputs), -1) @ self.support()

    def support(self) -> torch.Tensor:
        """The returns [num_atoms] that have a probability."""
        return torch.linspace(self.v_min, self.v_max, self.num_atoms)

    def __call__(self, online: QFunction, target: QFunction, transition: Transition) -> LossOutput:
        """Cross-entropy with the projected target; the priority is the divergence (KL) from it."""
        support = self.support()
        log_p = torch.log_softmax(gather_actions(self._atoms(online(transition.obs)), transition.action), -1)
        with torch.no_grad():
            next_p = torch.softmax(self._atoms(target(transition.next_obs)), -1)
            values = action_values(self.q_values)
            backup: Backup = self.target(lambda: next_p @ support, values(online), values(target), transition)
            td_target = self.project(backup.expect(next_p), backup.reward, transition.discount)
        loss = -(td_target * log_p).sum(-1)
        with torch.no_grad():
            divergence = (loss + torch.xlogy(td_target, td_target).sum(-1)).clamp(min=0.0)
            q = log_p.exp() @ support
        return LossOutput(loss, divergence, q)

    def project(self, p: torch.Tensor, reward: torch.Tensor, discount: torch.Tensor) -> torch.Tensor:
        """Probabilities [batch, atoms] of reward + discount * atom, as mass on the two atoms next to each.

        Bellemare et al. 2017, eq. 7. Returns outside the support count as its nearest end.
        """
        moved = reward.unsqueeze(-1) + discount.unsqueeze(-1) * self.support()
        spacing = (self.v_max - self.v_min) / (self.num_atoms - 1)
        place = ((moved - self.v_min) / spacing).clamp(0, self.num_atoms - 1)
        index = place.long().clamp(0, self.num_atoms - 2)  # there is always an atom above, even of NaN
        share = place - index
        td_target = torch.zeros_like(p).scatter_add(-1, index, p * (1 - share))
        return td_target.scatter_add(-1, index + 1, p * share)

    def _atoms(self, outputs: torch.Tensor) -> torch.Tensor:
        return per_action(outputs, self.num_atoms)
