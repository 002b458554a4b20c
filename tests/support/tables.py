"""Networks that look outputs up in a table, for tests of losses and their gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dqn_runner.core.types import Transition


def lookup(table: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """A network whose observations [batch, 1] are row numbers of `table` [states, outputs]."""
    return lambda obs: table[obs[:, 0].long()]


def step(action: int, reward: float, discount: float) -> Transition:
    """One transition from state 0 to state 1."""
    return Transition(
        obs=torch.tensor([[0.0]]),
        action=torch.tensor([action]),
        reward=torch.tensor([reward]),
        discount=torch.tensor([discount]),
        next_obs=torch.tensor([[1.0]]),
    )


def random_transitions(states: int, actions: int, generator: torch.Generator) -> Transition:
    """One transition from each state, with discounts of terminations and of 1 to 3 steps."""
    return Transition(
        obs=torch.randperm(states, generator=generator).float().unsqueeze(-1),
        action=torch.randint(actions, (states,), generator=generator),
        reward=torch.randn(states, generator=generator),
        discount=torch.tensor([0.0, 0.9, 0.81, 0.729])[torch.randint(4, (states,), generator=generator)],
        next_obs=torch.randperm(states, generator=generator).float().unsqueeze(-1),
    )
