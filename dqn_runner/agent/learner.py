"""The update of the learner as a function of explicit state, over flat parameter vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

from dqn_runner.agent.losses.base import Loss
from dqn_runner.agent.networks.base import NetworkFunction, Params
from dqn_runner.agent.optimizers import LearningRate, Moments, Optimizer
from dqn_runner.agent.update_noise import UpdateNoise, bind_networks
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import State
from dqn_runner.core.types import Transition

UPDATE_METRICS = ("loss", "q_mean", "grad_norm")
"""Names of the statistics that every update returns, in their order."""


class LearnerState:
    """Everything that an update changes: vectors [*runs, parameters], and views with the layers' shapes."""

    def __init__(
        self, params: torch.Tensor, moments: Moments, views: Callable[[torch.Tensor], Params]
    ) -> None:
        """Online and target parameters start as `params`; `views` splits a vector into parameters."""
        self.online = params
        self.target = params.clone()
        self.grad = torch.zeros_like(params)
        self.grad_rows = self.grad.view(-1, params.shape[-1])
        """The gradients as [runs, parameters], also for a single run."""
        self.moments = moments
        self._moments = _describe(moments)
        self.updates = 0
        self.online_params = [view.detach().requires_grad_() for view in views(self.online)]
        self.target_params = views(self.target)
        for param, grad in zip(self.online_params, views(self.grad), strict=True):
            param.grad = grad

    def state_dict(self) -> State:
        """Parameters, optimizer moments and the number of updates; the tensors are not copied.

        Raises UserError if the optimizer has other moments than at first: a resumed run begins with those.
        """
        if (now := _describe(self.moments)) != self._moments:
            raise UserError(
                f"agent.optimizer: its step() made the moments {now or 'none'} of {self._moments or 'none'}; "
                "init() must return all of them in their shapes, which step() changes in place"
            )
        return {
            "online": self.online,
            "target": self.target,
            "moments": self.moments,
            "updates": self.updates,
        }

    def load_state_dict(self, state: State) -> None:
        """Copy the values of `state` into the tensors, which others hold views of.

        Raises a UserError if it is the state of another network or optimizer.
        """
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
    """Numbers that may change between updates."""

    learning_rate: LearningRate
    max_grad_norm: float | None
    """Longer gradients are scaled down to this norm; None disables it."""


class Objective(Protocol):
    """The loss of a batch of one run."""

    def __call__(
        self,
        online: Params,
        target: Params,
        transition: Transition,
        weight: torch.Tensor,
        noise: UpdateNoise | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The weighted loss, the priorities [batch], and the mean value of the actions taken."""
        ...


class Update(Protocol):
    """One gradient step; see `make_update`."""

    def __call__(
        self,
        state: LearnerState,
        transition: Transition,
        weight: torch.Tensor,
        hyper: HyperParameters,
        noise: UpdateNoise | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Priorities [*runs, batch] and statistics [*runs, len(UPDATE_METRICS)]."""
        ...


def make_objective(network: NetworkFunction, loss: Loss) -> Objective:
    """Create the function that an update minimises; see `Objective`."""

    def objective(
        online: Params,
        target: Params,
        transition: Transition,
        weight: torch.Tensor,
        noise: UpdateNoise | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        result = loss(*bind_networks(network, online, target, noise), transition)
        return torch.dot(weight, result.loss), result.priority, result.q.mean()

    return objective


def make_update(network: NetworkFunction, loss: Loss, optimizer: Optimizer) -> Update:
    """Create the function that takes one gradient step.

    Its arguments are the state, which it changes in place, a transition batch, the weight of each sample
    [*runs, batch], the hyper-parameters, and the random numbers of the update (see `update_noise`; None if
    it needs none). It returns priorities [*runs, batch] and statistics [*runs, len(UPDATE_METRICS)].

    If all of them have a leading `runs` axis, every run gets the update that it would get alone.
    """

    objective = make_objective(network, loss)

    def update(
        state: LearnerState,
        transition: Transition,
        weight: torch.Tensor,
        hyper: HyperParameters,
        noise: UpdateNoise | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        evaluate: Any = objective
        if state.online.dim() > 1:
            columns: Any = Transition(*(0 for _ in transition.columns()))  # pyright: ignore[reportArgumentType]
            evaluate = torch.func.vmap(objective, in_dims=(0, 0, columns, 0, None if noise is None else 0))
        losses, priority, q_mean = evaluate(
            state.online_params, state.target_params, transition, weight, noise
        )
        state.grad.zero_()
        # Gradients accumulate in the views of `state.grad`. The sum is right for several runs too, because
        # they share no parameters; calling `backward` with a gradient instead would import sympy.
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
    """Move the target parameters towards the online parameters by the fraction `tau`; 1 copies them."""
    if tau == 1.0:
        state.target.copy_(state.online)
    else:
        state.target.lerp_(state.online, tau)


def _describe(tensors: dict[str, torch.Tensor]) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
