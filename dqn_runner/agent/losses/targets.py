"""How a loss values the next state: which of its actions count, and what is added to the reward."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.registry import option
from dqn_runner.core.types import Transition

_GROUP = "agent/loss/target"

Values = Callable[["torch.Tensor"], "torch.Tensor"]
"""Observations [batch, *obs_shape] to action values [batch, actions]."""


class Backup(NamedTuple):
    """What a loss learns towards: `reward` + discount * (the next state's outputs under `policy`)."""

    reward: torch.Tensor
    """[batch]: the rewards of the transition, and what the bootstrap adds to them."""
    policy: torch.Tensor
    """Next actions: one for each sample [batch], or their probabilities [batch, actions]."""

    def expect(self, outputs: torch.Tensor) -> torch.Tensor:
        """Outputs of the next state [batch, actions, ...] under the policy, [batch, ...]."""
        if self.policy.dim() == 1:
            return gather_actions(outputs, self.policy)
        weight = self.policy.view(*self.policy.shape, *[1] * (outputs.dim() - 2))
        return (weight * outputs).sum(1)


class TargetRule(Protocol):
    """A way to value the next state."""

    def __call__(
        self, next_values: Callable[[], torch.Tensor], online: Values, target: Values, transition: Transition
    ) -> Backup:
        """Called without gradients. `next_values()` is what the target network says of the next state.

        `online` and `target` value any other state; each call costs a pass through the network.
        """
        ...


@option(_GROUP, "max")
@dataclass(kw_only=True)
class MaxTarget:
    """The action that the target network values most (Mnih et al. 2015)."""

    def __call__(
        self, next_values: Callable[[], torch.Tensor], online: Values, target: Values, transition: Transition
    ) -> Backup:
        """Greedy in the target network's values."""
        return Backup(transition.reward, next_values().argmax(-1))


@option(_GROUP, "double")
@dataclass(kw_only=True)
class DoubleTarget:
    """The action that the online network values most (van Hasselt et al. 2016, eq. 4)."""

    def __call__(
        self, next_values: Callable[[], torch.Tensor], online: Values, target: Values, transition: Transition
    ) -> Backup:
        """Greedy in the online network's values."""
        return Backup(transition.reward, online(transition.next_obs).argmax(-1))


@option(_GROUP, "munchausen")
@dataclass(kw_only=True)
class MunchausenTarget:
    """A softmax policy with entropy, and its log-probability as a reward (Vieillard et al. 2020, eq. 2).

    With n-step returns the log-probability is that of the first action alone.
    """

    alpha: float = 0.9
    """Weight of the log-probability that is added to the reward; 0 leaves soft DQN."""
    temperature: float = 0.03
    """Of the softmax policy, the entropy and the log-probability."""
    floor: float = -1.0
    """The scaled log-probability counts down to this."""

    def __post_init__(self) -> None:
        """Refuse a policy that cannot be computed."""
        if not (0 < self.temperature < math.inf and self.floor <= 0 <= self.alpha < math.inf):
            raise UserError(
                "agent.loss.target needs a temperature above 0, a floor of at most 0 and an alpha of at "
                f"least 0; got temperature={self.temperature}, floor={self.floor}, alpha={self.alpha}"
            )

    def __call__(
        self, next_values: Callable[[], torch.Tensor], online: Values, target: Values, transition: Transition
    ) -> Backup:
        """Both policies are those of the target network."""
        next_log = torch.log_softmax(next_values() / self.temperature, -1)
        policy = next_log.exp()
        entropy = -self.temperature * (policy * next_log).sum(-1)
        log = torch.log_softmax(target(transition.obs) / self.temperature, -1)
        bonus = (self.temperature * gather_actions(log, transition.action)).clamp(self.floor, 0.0)
        reward = transition.reward + self.alpha * bonus + transition.discount * entropy
        return Backup(reward, policy)


def gather_actions(outputs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """Outputs [batch, actions, ...] of the actions [batch], as [batch, ...]."""
    index = action.view(-1, *[1] * (outputs.dim() - 1)).expand(-1, 1, *outputs.shape[2:])
    return outputs.gather(1, index).squeeze(1)
