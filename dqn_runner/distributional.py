"""Losses that learn the distribution of returns: on fixed atoms, by quantiles, by sampled quantiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dqn_runner.bootstraps import Backup, Max, Values, pick
from dqn_runner.lazy import torch
from dqn_runner.registry import option, slot
from dqn_runner.types import LossOutput, QFunction, Transition, UserError


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
    bootstrap: Any = slot(Max)

    def __post_init__(self) -> None:
        """Refuse a support without width."""
        if self.num_atoms < 2 or not -math.inf < self.v_min < self.v_max < math.inf:
            raise UserError(
                "agent.loss needs num_atoms of at least 2 and a finite v_min below v_max; got "
                f"num_atoms={self.num_atoms}, v_min={self.v_min}, v_max={self.v_max}"
            )

    @property
    def width(self) -> int:
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
        log_p = torch.log_softmax(pick(self._atoms(online(transition.obs)), transition.action), -1)
        with torch.no_grad():
            next_p = torch.softmax(self._atoms(target(transition.next_obs)), -1)
            values = _valued(self.q_values)
            backup: Backup = self.bootstrap(
                lambda: next_p @ support, values(online), values(target), transition
            )
            goal = self.project(backup.expect(next_p), backup.reward, transition.discount)
        loss = -(goal * log_p).sum(-1)
        with torch.no_grad():
            divergence = (loss + torch.xlogy(goal, goal).sum(-1)).clamp(min=0.0)
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
        goal = torch.zeros_like(p).scatter_add(-1, index, p * (1 - share))
        return goal.scatter_add(-1, index + 1, p * share)

    def _atoms(self, outputs: torch.Tensor) -> torch.Tensor:
        return _per_action(outputs, self.num_atoms)


@option("agent/loss", "quantile")
@dataclass(kw_only=True)
class Quantile:
    """QR-DQN: the return's quantiles at the middles of equal fractions (Dabney et al. 2018a, Algorithm 1)."""

    num_quantiles: int = 200
    """Quantiles of each action's return."""
    kappa: float = 1.0
    """Quantile errors are squared up to it, linear beyond."""
    bootstrap: Any = slot(Max)

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        _at_least(1, "agent.loss.num_quantiles", self.num_quantiles)
        _check_kappa(self.kappa)

    @property
    def width(self) -> int:
        """One output for each quantile."""
        return self.num_quantiles

    def q_values(self, outputs: torch.Tensor) -> torch.Tensor:
        """Means of the quantiles."""
        return _per_action(outputs, self.num_quantiles).mean(-1)

    def __call__(self, online: QFunction, target: QFunction, transition: Transition) -> LossOutput:
        """Quantile Huber loss; the priority is the absolute difference of the means."""
        quantiles = pick(_per_action(online(transition.obs), self.num_quantiles), transition.action)
        fractions = (torch.arange(self.num_quantiles) + 0.5) / self.num_quantiles
        with torch.no_grad():
            following = _per_action(target(transition.next_obs), self.num_quantiles)
            values = _valued(self.q_values)
            backup: Backup = self.bootstrap(
                lambda: following.mean(-1), values(online), values(target), transition
            )
            goal = _moved(backup.expect(following), backup.reward, transition.discount)
        return _quantile_output(quantiles, fractions.expand_as(quantiles), goal, self.kappa)


@option("agent/loss", "implicit_quantile")
@dataclass(kw_only=True)
class ImplicitQuantile:
    """IQN: the return's quantiles at fractions drawn anew each time (Dabney et al. 2018b, section 3).

    The network needs agent.network.cosines, by which it takes fractions.
    """

    num_fractions: int = 64
    """Fractions at which the online network is learned, per sample (N)."""
    num_target_fractions: int = 64
    """Fractions at which the target network is asked, per sample (N')."""
    num_policy_fractions: int = 32
    """Fractions whose mean is an action's value (K): drawn in learning, evenly spaced in acting."""
    kappa: float = 1.0
    """Quantile errors are squared up to it, linear beyond."""
    bootstrap: Any = slot(Max)

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        for name in ("num_fractions", "num_target_fractions", "num_policy_fractions"):
            _at_least(1, f"agent.loss.{name}", getattr(self, name))
        _check_kappa(self.kappa)

    @property
    def width(self) -> int:
        """What a network gives that is not told which fractions to take."""
        return self.num_policy_fractions

    def q_values(self, outputs: torch.Tensor) -> torch.Tensor:
        """Means over the fractions."""
        return _per_action(outputs, self.num_policy_fractions).mean(-1)

    def __call__(self, online: QFunction, target: QFunction, transition: Transition) -> LossOutput:
        """Quantile Huber loss; the priority is the absolute difference of the means."""
        fractions = online.fractions(self.num_fractions)
        outputs = _per_action(online(transition.obs, fractions), self.num_fractions)
        quantiles = pick(outputs, transition.action)

        with torch.no_grad():
            asked = target.fractions(self.num_target_fractions)
            following = _per_action(target(transition.next_obs, asked), self.num_target_fractions)
            values = _valued(self.q_values, self.num_policy_fractions)
            backup: Backup = self.bootstrap(
                lambda: values(target)(transition.next_obs), values(online), values(target), transition
            )
            goal = _moved(backup.expect(following), backup.reward, transition.discount)
        return _quantile_output(quantiles, fractions, goal, self.kappa)


def quantile_huber(
    quantiles: torch.Tensor, fractions: torch.Tensor, goal: torch.Tensor, kappa: float
) -> torch.Tensor:
    """Loss [batch] of `quantiles` at `fractions`, both [batch, n], against samples `goal` [batch, m].

    Summed over the quantiles, averaged over the samples (Dabney et al. 2018a, Algorithm 1), and divided by
    kappa (2018b, eq. 3). The gradient is given in closed form: autograd would keep five arrays [batch, n, m]
    and take twice the time.
    """
    with torch.no_grad():
        error = goal.unsqueeze(-2) - quantiles.unsqueeze(-1)  # [batch, n, m]
        fraction = fractions.unsqueeze(-1)
        slope = torch.where(error < 0, 1 - fraction, fraction)
        clipped = error.clamp(-kappa, kappa)
        slope.mul_(clipped)
        gradient = slope.mean(-1) / -kappa
        error.sub_(clipped, alpha=0.5)  # clipped * error is now the Huber loss
        value = slope.mul_(error).mean(-1).sum(-1) / kappa
    linear = (gradient * quantiles).sum(-1)
    return value + (linear - linear.detach())


def _quantile_output(
    quantiles: torch.Tensor, fractions: torch.Tensor, goal: torch.Tensor, kappa: float
) -> LossOutput:
    q = quantiles.detach().mean(-1)
    priority = (goal.mean(-1) - q).abs()
    return LossOutput(quantile_huber(quantiles, fractions, goal, kappa), priority, q)


def _valued(q_values: Values, num_fractions: int | None = None) -> Callable[[QFunction], Values]:
    """From a network to its action values, as `q_values` reads them off its outputs; at new fractions."""

    if num_fractions is None:
        return lambda network: lambda obs: q_values(network(obs))
    return lambda network: lambda obs: q_values(network(obs, network.fractions(num_fractions)))


def _moved(outputs: torch.Tensor, reward: torch.Tensor, discount: torch.Tensor) -> torch.Tensor:
    """Samples of the return [batch, n] one step earlier."""
    return torch.addcmul(reward.unsqueeze(-1), discount.unsqueeze(-1), outputs)


def _per_action(outputs: torch.Tensor, width: int) -> torch.Tensor:
    return outputs.view(*outputs.shape[:-1], -1, width)


def _at_least(low: int, name: str, value: int) -> None:
    if value < low:
        raise UserError(f"{name} must be at least {low}, got {value}")


def _check_kappa(kappa: float) -> None:
    if not 0 < kappa < math.inf:
        raise UserError(f"agent.loss.kappa must be a positive number, got {kappa}")
