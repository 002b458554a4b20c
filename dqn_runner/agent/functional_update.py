"""The update of `learner.make_update` as a pure function of tensors, which a compiler can read.

Two forms of the update exist because each is the faster one in its place. Run by torch operation by
operation, the form in `learner` saves allocations and uses fused kernels; compiled, this one is several times
faster than that. Both have the same losses and networks, and a test holds them to each other step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

from dqn_runner.agent.learner import make_objective
from dqn_runner.agent.losses.base import Loss
from dqn_runner.agent.networks.base import NetworkFunction, Params
from dqn_runner.agent.optimizers import CompilableOptimizer, Moments
from dqn_runner.agent.update_noise import UpdateNoise
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.types import Transition


class UpdateInputs(NamedTuple):
    """What one update of one run reads."""

    online: torch.Tensor
    """[parameters]"""
    target: torch.Tensor
    """[parameters]"""
    moments: Moments
    scalars: torch.Tensor
    """[n]: those of the optimizer for the number of this update and the learning rate."""
    transition: Transition
    weight: torch.Tensor
    """[batch]"""
    noise: UpdateNoise | None


class UpdateOutputs(NamedTuple):
    """What one update of one run computes."""

    online: torch.Tensor
    moments: Moments
    priority: torch.Tensor
    """[batch]"""
    statistics: torch.Tensor
    """[len(learner.UPDATE_METRICS)]"""


FunctionalUpdate = Callable[[UpdateInputs], UpdateOutputs]
_TINY = 1e-7
"""What `torch.renorm` adds to a norm before it divides by it."""


def make_functional_update(
    network: NetworkFunction,
    views: Callable[[torch.Tensor], Params],
    loss: Loss,
    optimizer: CompilableOptimizer,
    max_grad_norm: float | None,
) -> FunctionalUpdate:
    """Create the function; `views` splits a vector [parameters] into the parameters of `network`."""
    objective = make_objective(network, loss)

    def update(inputs: UpdateInputs) -> UpdateOutputs:
        def loss_of(online: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
            params, target = views(online), views(inputs.target)
            value, priority, q_mean = objective(
                params, target, inputs.transition, inputs.weight, inputs.noise
            )
            return value, (priority, q_mean)

        differentiate = torch.func.grad_and_value(loss_of, has_aux=True)
        grad, (value, (priority, q_mean)) = differentiate(inputs.online)
        norm = cast("torch.Tensor", torch.linalg.vector_norm(grad))
        if max_grad_norm is not None:
            grad = grad * torch.where(norm > max_grad_norm, max_grad_norm / (norm + _TINY), 1.0)
        online, moments = optimizer.functional_step(inputs.online, grad, inputs.moments, inputs.scalars)
        return UpdateOutputs(online, moments, priority, torch.stack([value, q_mean, norm]))

    return update
