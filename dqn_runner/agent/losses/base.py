"""Losses: each owns the meaning of the network's outputs, for acting and for learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dqn_runner.agent.losses.targets import Values
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.types import LossOutput, QFunction, Transition


class Loss(Protocol):
    """What the agent minimises."""

    @property
    def outputs_per_action(self) -> int:
        """Outputs per action that the loss asks of the network."""
        ...

    def q_values(self, outputs: torch.Tensor) -> torch.Tensor:
        """Action values [batch, actions] from network outputs [batch, actions * outputs_per_action].

        With a outputs_per_action of 1 the outputs are the values, and acting takes them as they are.
        """
        ...

    def __call__(self, online: QFunction, target: QFunction, transition: Transition) -> LossOutput:
        """Per-sample loss of one run's batch; no gradient flows through `target`.

        It calls the networks as often as it likes, but always equally often: random numbers are drawn ahead.
        """
        ...


def action_values(q_values: Values, num_tau_samples: int | None = None) -> Callable[[QFunction], Values]:
    """From a network to its action values, as `q_values` reads them off its outputs; at new taus."""

    if num_tau_samples is None:
        return lambda network: lambda obs: q_values(network(obs))
    return lambda network: lambda obs: q_values(network(obs, network.sample_taus(num_tau_samples)))


def per_action(outputs: torch.Tensor, outputs_per_action: int) -> torch.Tensor:
    return outputs.view(*outputs.shape[:-1], -1, outputs_per_action)
