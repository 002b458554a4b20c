"""Learning as one function of explicit state, over flat parameter vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

from dqn_runner.agent.losses.base import Loss
from dqn_runner.agent.optimizers import Moments, Optimizer, Rate
from dqn_runner.agent.update_noise import Apply, BoundNetwork, NoiseSource, Params, UpdateNoise
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import State
from dqn_runner.core.types import Transition

UPDATE_METRICS = ("loss", "q_mean", "grad_norm")
"""The columns of the statistics that every update returns."""


class LearnerState:
    """What learning changes: flat vectors [*runs, parameters], and views of them with the layers' shapes."""

    def __init__(
        self, params: torch.Tensor, moments: Moments, views: Callable[[torch.Tensor], Params]
    ) -> None:
        """Online and target parameters start equal; `views` lays out a vector as a network's parameters."""
        self.online = params
        self.target = params.clone()
        self.grad = torch.zeros_like(params)
        self.grad_rows = self.grad.view(-1, params.shape[-1])
        self.moments = moments
        self.updates = 0
        self.online_params = [view.detach().requires_grad_() for view in views(self.online)]
        self.target_params = views(self.target)
        for param, grad in zip(self.online_params, views(self.grad), strict=True):
            param.grad = grad

    def state_dict(self) -> State:
        """The tensors themselves, not copies."""
        return {
            "online": self.online,
            "target": self.target,
            "moments": self.moments,
            "updates": self.updates,
        }

    def load_state_dict(self, state: State) -> None:
        """Copy the values in, for others hold views of these tensors."""
        tensors = {"online": self.online, "target": self.target, **self.moments}
        saved = {"online": state["online"], "target": state["target"], **state["moments"]}
        if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in saved.items()}:
            raise UserError(
                f"the checkpoint holds another network or optimizer: it has {_describe(saved)}, "
                f"this run has {_describe(tensors)}"
            )
        for name, tensor in tensors.items():
            tensor.copy_(saved[name])
        self.updates = state["updates"]


class HyperParameters(NamedTuple):
    """Numbers that may differ between runs learning side by side."""

    learning_rate: Rate
    max_grad_norm: float | None
    """Longer gradients are scaled down to it; None for no clipping."""


class Update(Protocol):
    """One gradient step, see `make_update`."""

    def __call__(
        self,
        state: LearnerState,
        transition: Transition,
        weight: torch.Tensor,
        hyper: HyperParameters,
        draws: UpdateNoise | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Priorities [*runs, batch] and statistics [*runs, len(UPDATE_METRICS)]."""
        ...


def make_update(network: Apply, loss: Loss, optimizer: Optimizer) -> Update:
    """The function that takes one gradient step.

    The update's arguments are the state, which is donated (its tensors take the new values), a transition,
    the weight of each sample [*runs, batch], the hyper-parameters, and the random numbers that `count_noise`
    asks for (None where it asks for none). It returns priorities [*runs, batch] and statistics
    [*runs, len(UPDATE_METRICS)]. With a leading `runs` axis on everything, each run learns as it would alone.
    """

    def objective(
        online: Params,
        target: Params,
        transition: Transition,
        weight: torch.Tensor,
        draws: UpdateNoise | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        source = NoiseSource(draws)
        result = loss(
            BoundNetwork(network, online, source), BoundNetwork(network, target, source), transition
        )
        return torch.dot(weight, result.loss), result.priority, result.q.mean()

    def update(
        state: LearnerState,
        transition: Transition,
        weight: torch.Tensor,
        hyper: HyperParameters,
        draws: UpdateNoise | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        many: Any = objective
        if state.online.dim() > 1:
            many = torch.func.vmap(objective, in_dims=(0, 0, 0, 0, None if draws is None else 0))
        losses, priority, q_mean = many(state.online_params, state.target_params, transition, weight, draws)
        state.grad.zero_()
        # Into the views of `grad`; the runs share no weight. Handed a gradient, torch imports sympy first.
        torch.autograd.backward(losses.sum())
        with torch.no_grad():
            norm = cast("torch.Tensor", torch.linalg.vector_norm(state.grad, dim=-1))
            if hyper.max_grad_norm is not None:
                state.grad_rows.renorm_(2, 0, hyper.max_grad_norm)
            state.updates += 1
            optimizer.step(state.online, state.grad, state.moments, state.updates, hyper.learning_rate)
            return priority, torch.stack([losses, q_mean, norm], dim=-1)

    return update


def sync_target(state: LearnerState, tau: float) -> None:
    """Move the target towards the online parameters by `tau`; 1 copies them."""
    if tau == 1.0:
        state.target.copy_(state.online)
    else:
        state.target.lerp_(state.online, tau)


def _describe(tensors: dict[str, torch.Tensor]) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
