"""The update on another device than the CPU; its inputs and results are on the CPU."""

from __future__ import annotations

from typing import TypeVar

from dqn_runner.agent.device import unrepeatable_as_user_errors
from dqn_runner.agent.learner import HyperParameters, LearnerState, Update
from dqn_runner.agent.update_noise import UpdateNoise
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.types import Transition

Tensors = TypeVar("Tensors", Transition, UpdateNoise)


def move(tensors: Tensors, device: torch.device) -> Tensors:
    """A tuple of tensors on `device`."""
    return tensors._make(None if tensor is None else tensor.to(device) for tensor in tensors)


def eager_update(update: Update, device: torch.device) -> Update:
    """`update`, which runs operation by operation on `device`."""

    def moved(
        state: LearnerState,
        transition: Transition,
        weight: torch.Tensor,
        hyper: HyperParameters,
        noise: UpdateNoise | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        noise = None if noise is None else move(noise, device)
        with unrepeatable_as_user_errors(device):
            priority, statistics = update(state, move(transition, device), weight.to(device), hyper, noise)
        return priority.cpu(), statistics.cpu()

    return moved
