"""The interface of losses. A loss defines what the network's outputs mean, for acting and for learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.types import LossOutput, QFunction, Transition

ActionValues = Callable[["torch.Tensor"], "torch.Tensor"]
"""A function from observations [batch, *obs_shape] to action values [batch, actions]."""


class Loss(Protocol):
    """An option of the config group `agent/loss`.

    It is a function of its arguments; what it keeps from call to call is resumed only if it has
    `state_dict()` and `load_state_dict(state)`.
    """

    @property
    def outputs_per_action(self) -> int:
        """Number of network outputs per action."""
        ...

    def q_values(self, outputs: torch.Tensor) -> torch.Tensor:
        """Action values [batch, actions] from network outputs [batch, actions * outputs_per_action].

        If `outputs_per_action` is 1, acting uses the outputs as action values and does not call this method.
        """
        ...

    def __call__(self, online: QFunction, target: QFunction, transition: Transition) -> LossOutput:
        """Per-sample loss of the batch of one run; no gradient may flow through `target`.

        The number of network calls and of taus must be the same in every update, because the random numbers
        of an update are drawn before it (see `agent.update_noise`).
        """
        ...


def action_values(
    network: QFunction, q_values: Callable[[torch.Tensor], torch.Tensor], num_taus: int | None = None
) -> ActionValues:
    """The action values of `network`, computed by `q_values` from its outputs.

    With `num_taus`, every call evaluates an implicit quantile network at that many new taus.
    """
    if num_taus is None:
        return lambda obs: q_values(network(obs))
    return lambda obs: q_values(network(obs, network.sample_taus(num_taus)))


def split_by_action(outputs: torch.Tensor, outputs_per_action: int) -> torch.Tensor:
    """Network outputs [batch, actions * outputs_per_action] as [batch, actions, outputs_per_action]."""
    return outputs.view(*outputs.shape[:-1], -1, outputs_per_action)


def gather_actions(outputs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """Outputs [batch, actions, ...] of the actions [batch], as [batch, ...]."""
    if adds_at_indices(outputs):
        index = action.view(-1, *[1] * (outputs.dim() - 1)).expand(-1, 1, *outputs.shape[2:])
        return outputs.gather(1, index).squeeze(1)
    actions = torch.arange(outputs.shape[1], device=outputs.device)
    chosen = (action.unsqueeze(-1) == actions).view(*outputs.shape[:2], *[1] * (outputs.dim() - 2))
    return torch.where(chosen, outputs, 0.0).sum(1)


def adds_at_indices(tensor: torch.Tensor) -> bool:
    """Whether `scatter_add`, and with it the gradient of `gather`, is one kernel on the device of a tensor.

    On the CPU it is. On CUDA, the form that gives the same bytes each time sorts the indices, by some twenty
    kernels; where there are few indices, comparing with all of them needs three.
    """
    return tensor.device.type == "cpu"
