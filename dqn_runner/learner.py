"""Learning as one function of explicit state, over flat parameter vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from dqn_runner.lazy import torch
from dqn_runner.losses import Loss
from dqn_runner.optimizers import Moments, Optimizer
from dqn_runner.types import State, Transition, UserError

INFO = ("loss", "q_mean", "grad_norm")
"""The columns of the statistics that every update returns."""


@dataclass
class LearnerState:
    """What learning changes; tensors are [*runs, parameters]."""

    online: torch.Tensor
    target: torch.Tensor
    moments: Moments
    updates: int = 0

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


class Hyper(NamedTuple):
    """Numbers that may differ between runs learning side by side, each [*runs, 1]."""

    learning_rate: torch.Tensor
    max_grad_norm: torch.Tensor
    """Infinity for no clipping."""


Update = Callable[[LearnerState, Transition, "torch.Tensor", Hyper], tuple["torch.Tensor", "torch.Tensor"]]
Apply = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def make_update(network: Apply, loss: Loss, optimizer: Optimizer) -> Update:
    """The function that takes one gradient step.

    `network(flat, obs)` gives outputs [batch, actions, width]. The update's arguments are the state,
    which is donated (its tensors take the new values), a transition, importance weights [*runs, batch]
    and the hyper-parameters. It returns priorities [*runs, batch] and statistics [*runs, len(INFO)].
    With a leading `runs` axis on everything, each run learns exactly as it would alone.
    """

    def objective(
        online: torch.Tensor, target: torch.Tensor, transition: Transition, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        result = loss(lambda obs: network(online, obs), lambda obs: network(target, obs), transition)
        return (weight * result.loss).mean(), result.priority, result.q.mean()

    def update(
        state: LearnerState, transition: Transition, weight: torch.Tensor, hyper: Hyper
    ) -> tuple[torch.Tensor, torch.Tensor]:
        online = state.online.detach().requires_grad_()
        many: Any = objective if online.dim() == 1 else torch.func.vmap(objective)
        losses, priority, q_mean = many(online, state.target, transition, weight)
        (grad,) = torch.autograd.grad(losses.sum(), online)
        with torch.no_grad():
            norm = cast("torch.Tensor", torch.linalg.vector_norm(grad, dim=-1, keepdim=True))
            grad.mul_((hyper.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
            state.updates += 1
            optimizer.step(state.online, grad, state.moments, state.updates, hyper.learning_rate)
        return priority, torch.stack([losses.detach(), q_mean, norm.squeeze(-1)], dim=-1)

    return update


def sync_target(state: LearnerState, tau: float) -> None:
    """Move the target towards the online parameters by `tau`; 1 copies them."""
    if tau == 1.0:
        state.target.copy_(state.online)
    else:
        state.target.lerp_(state.online, tau)


def _describe(tensors: dict[str, torch.Tensor]) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
