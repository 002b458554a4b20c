"""TD targets: which actions of the next state count, and what is added to the reward."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from dqn_runner.agent.losses.base import ActionValues, gather_actions
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.registry import option
from dqn_runner.core.settings import check_settings, setting
from dqn_runner.core.types import Transition

_GROUP = "agent/loss/target"
_LOWEST = -3.4e38
"""About the lowest number of float32."""


def masked(q: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Action values [batch, actions], those of actions that `mask` does not allow replaced by -inf."""
    return q if mask is None else torch.where(mask, q, -math.inf)


class Backup(NamedTuple):
    """The parts of a TD target: reward + discount * (the next state's outputs, averaged over `policy`)."""

    reward: torch.Tensor
    """[batch]: the rewards of the transitions, including what the target rule adds to them."""
    policy: torch.Tensor
    """The next actions: one for each sample [batch], or their probabilities [batch, actions]."""

    def expectation(self, next_outputs: torch.Tensor) -> torch.Tensor:
        """Outputs of the next state [batch, actions, ...] averaged over the policy, as [batch, ...]."""
        if self.policy.dim() == 1:
            return gather_actions(next_outputs, self.policy)
        weight = self.policy.view(*self.policy.shape, *[1] * (next_outputs.dim() - 2))
        return (weight * next_outputs).sum(1)

    def td_target(self, next_values: torch.Tensor, discount: torch.Tensor) -> torch.Tensor:
        """TD targets [batch] from action values [batch, actions] of the next state.

        From quantiles [batch, actions, n] of the next state's return it computes those of the TD target
        [batch, n].
        """
        expectation = self.expectation(next_values)
        if expectation.dim() == 1:
            return torch.addcmul(self.reward, discount, expectation)
        return torch.addcmul(self.reward.unsqueeze(-1), discount.unsqueeze(-1), expectation)


class TargetRule(Protocol):
    """An option of the config group `agent/loss/target`."""

    def __call__(
        self,
        next_q: Callable[[], torch.Tensor],
        online: ActionValues,
        target: ActionValues,
        transition: Transition,
    ) -> Backup:
        """Compute the parts of the TD target; called without gradients.

        `next_q()` returns the target network's action values [batch, actions] in the next state. `online` and
        `target` compute action values in any states; each call costs a forward pass. None of them knows which
        actions are allowed: `masked(q, transition.next_mask)` leaves out the others.
        """
        ...


@option(_GROUP, "max")
@dataclass(kw_only=True)
class MaxTarget:
    """The next action is the best by the target network (Mnih et al. 2015)."""

    def __call__(
        self,
        next_q: Callable[[], torch.Tensor],
        online: ActionValues,
        target: ActionValues,
        transition: Transition,
    ) -> Backup:
        """Greedy in the target network's values."""
        return Backup(transition.reward, masked(next_q(), transition.next_mask).argmax(-1))


@option(_GROUP, "double")
@dataclass(kw_only=True)
class DoubleTarget:
    """The next action is the best by the online network (van Hasselt et al. 2016, eq. 4)."""

    def __call__(
        self,
        next_q: Callable[[], torch.Tensor],
        online: ActionValues,
        target: ActionValues,
        transition: Transition,
    ) -> Backup:
        """Greedy in the online network's values."""
        values = masked(online(transition.next_obs), transition.next_mask)
        return Backup(transition.reward, values.argmax(-1))


@option(_GROUP, "munchausen")
@dataclass(kw_only=True)
class MunchausenTarget:
    """A softmax policy with entropy, and its scaled log-probability added to the reward.

    Vieillard et al. 2020, eq. 2. With n-step returns only the log-probability of the first action is added.
    """

    alpha: float = setting(0.9, at_least=0)
    """Weight of the log-probability that is added to the reward; 0 is soft DQN."""
    temperature: float = setting(0.03, above=0)
    """Temperature of the softmax policy; it also scales the entropy and the log-probability."""
    floor: float = setting(-1.0, at_most=0)
    """Lower bound of the scaled log-probability."""

    __post_init__ = check_settings

    def __call__(
        self,
        next_q: Callable[[], torch.Tensor],
        online: ActionValues,
        target: ActionValues,
        transition: Transition,
    ) -> Backup:
        """Both policies, in the current and the next state, are those of the target network."""
        next_log_policy = self._log_policy(next_q(), transition.next_mask)
        next_policy = next_log_policy.exp()
        entropy = -self.temperature * (next_policy * next_log_policy).sum(-1)
        log_policy = self._log_policy(target(transition.obs), transition.mask)
        bonus = (self.temperature * gather_actions(log_policy, transition.action)).clamp(self.floor, 0.0)
        reward = transition.reward + self.alpha * bonus + transition.discount * entropy
        return Backup(reward, next_policy)

    def _log_policy(self, q: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Log-probabilities of the softmax over the allowed actions.

        Those of the other actions are the lowest number instead of -inf, because 0 * -inf is not 0.
        """
        log_policy = torch.log_softmax(masked(q, mask) / self.temperature, -1)
        return log_policy if mask is None else log_policy.clamp(min=_LOWEST)
