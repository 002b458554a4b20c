"""Learning as one function of explicit state, over flat parameter vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

from dqn_runner.lazy import torch
from dqn_runner.losses import Loss
from dqn_runner.optimizers import Moments, Optimizer, Rate
from dqn_runner.types import State, Transition, UserError

INFO = ("loss", "q_mean", "grad_norm")
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


class Hyper(NamedTuple):
    """Numbers that may differ between runs learning side by side."""

    learning_rate: Rate
    max_grad_norm: float | None
    """Longer gradients are scaled down to it; None for no clipping."""


Params = list["torch.Tensor"]


class Apply(Protocol):
    """A network as a function."""

    def __call__(
        self,
        params: Params,
        obs: torch.Tensor,
        noise: torch.Tensor | None = None,
        fractions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Outputs [batch, actions * width] with these parameters and this noise [noise_size]."""
        ...


class Draws(NamedTuple):
    """The random numbers of one update, drawn ahead so that the update is a function of its arguments."""

    noise: torch.Tensor
    """[*runs, calls of a network, noise_size] standard normal."""
    fractions: torch.Tensor
    """[*runs, batch, count] uniform between 0 and 1."""


class Needs(NamedTuple):
    """How many random numbers a loss takes from its networks in one update."""

    calls: int
    fractions: int


class Update(Protocol):
    """One gradient step, see `make_update`."""

    def __call__(
        self,
        state: LearnerState,
        transition: Transition,
        weight: torch.Tensor,
        hyper: Hyper,
        draws: Draws | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Priorities [*runs, batch] and statistics [*runs, len(INFO)]."""
        ...


class _Source:
    """Hands out random numbers in the order in which they are asked for."""

    def __init__(self, draws: Draws | None) -> None:
        self._draws = draws
        self._needs = Needs(0, 0)

    def noise(self) -> torch.Tensor | None:
        call = self._needs.calls
        self._needs = self._needs._replace(calls=call + 1)
        return None if self._draws is None else self._draws.noise[call]

    def fractions(self, count: int) -> torch.Tensor:
        first = self._needs.fractions
        self._needs = self._needs._replace(fractions=first + count)
        assert self._draws is not None
        return self._draws.fractions[:, first : first + count]


class _Counter(_Source):
    """Counts what is asked for."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(None)
        self._batch_size = batch_size

    @property
    def needs(self) -> Needs:
        return self._needs

    def fractions(self, count: int) -> torch.Tensor:
        self._needs = self._needs._replace(fractions=self._needs.fractions + count)
        return torch.full((self._batch_size, count), 0.5)


class _Network(NamedTuple):
    """The QFunction that a loss sees."""

    apply: Apply
    params: Params
    source: _Source

    def __call__(self, obs: torch.Tensor, fractions: torch.Tensor | None = None) -> torch.Tensor:
        return self.apply(self.params, obs, self.source.noise(), fractions)

    def fractions(self, count: int) -> torch.Tensor:
        return self.source.fractions(count)


def needs_of(network: Apply, params: Params, loss: Loss, transition: Transition) -> Needs:
    """Ask the loss once, with any batch, what it takes from its networks."""
    counter = _Counter(len(transition.action))
    with torch.no_grad():
        loss(_Network(network, params, counter), _Network(network, params, counter), transition)
    return counter.needs


def make_update(network: Apply, loss: Loss, optimizer: Optimizer) -> Update:
    """The function that takes one gradient step.

    The update's arguments are the state, which is donated (its tensors take the new values), a transition,
    the weight of each sample [*runs, batch], the hyper-parameters, and the random numbers that `needs_of`
    asks for (None where it asks for none). It returns priorities [*runs, batch] and statistics
    [*runs, len(INFO)]. With a leading `runs` axis on everything, each run learns as it would alone.
    """

    def objective(
        online: Params, target: Params, transition: Transition, weight: torch.Tensor, draws: Draws | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        source = _Source(draws)
        result = loss(_Network(network, online, source), _Network(network, target, source), transition)
        return torch.dot(weight, result.loss), result.priority, result.q.mean()

    def update(
        state: LearnerState,
        transition: Transition,
        weight: torch.Tensor,
        hyper: Hyper,
        draws: Draws | None = None,
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
