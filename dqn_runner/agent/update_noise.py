"""Learning as one function of explicit state, over flat parameter vectors."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from dqn_runner.agent.losses.base import Loss
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.types import Transition

Params = list["torch.Tensor"]


class Apply(Protocol):
    """A network as a function."""

    def __call__(
        self,
        params: Params,
        obs: torch.Tensor,
        noise: torch.Tensor | None = None,
        taus: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Outputs [batch, actions * outputs_per_action] with these parameters and this noise [noise_size]."""
        ...


class UpdateNoise(NamedTuple):
    """The random numbers of one update, drawn ahead so that the update is a function of its arguments."""

    noise: torch.Tensor
    """[*runs, calls of a network, noise_size] standard normal."""
    taus: torch.Tensor
    """[*runs, batch, count] uniform between 0 and 1."""


class NoiseRequirements(NamedTuple):
    """How many random numbers a loss takes from its networks in one update."""

    calls: int
    taus: int


class NoiseSource:
    """Hands out random numbers in the order in which they are asked for."""

    def __init__(self, draws: UpdateNoise | None) -> None:
        self._draws = draws
        self._needs = NoiseRequirements(0, 0)

    def noise(self) -> torch.Tensor | None:
        call = self._needs.calls
        self._needs = self._needs._replace(calls=call + 1)
        return None if self._draws is None else self._draws.noise[call]

    def sample_taus(self, count: int) -> torch.Tensor:
        first = self._needs.taus
        self._needs = self._needs._replace(taus=first + count)
        assert self._draws is not None
        return self._draws.taus[:, first : first + count]


class _NoiseCounter(NoiseSource):
    """Counts what is asked for."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(None)
        self._batch_size = batch_size

    @property
    def needs(self) -> NoiseRequirements:
        return self._needs

    def sample_taus(self, count: int) -> torch.Tensor:
        self._needs = self._needs._replace(taus=self._needs.taus + count)
        return torch.full((self._batch_size, count), 0.5)


class BoundNetwork(NamedTuple):
    """The QFunction that a loss sees."""

    apply: Apply
    params: Params
    source: NoiseSource

    def __call__(self, obs: torch.Tensor, taus: torch.Tensor | None = None) -> torch.Tensor:
        return self.apply(self.params, obs, self.source.noise(), taus)

    def sample_taus(self, count: int) -> torch.Tensor:
        return self.source.sample_taus(count)


def count_noise(network: Apply, params: Params, loss: Loss, transition: Transition) -> NoiseRequirements:
    """Ask the loss once, with any batch, what it takes from its networks."""
    counter = _NoiseCounter(len(transition.action))
    with torch.no_grad():
        loss(BoundNetwork(network, params, counter), BoundNetwork(network, params, counter), transition)
    return counter.needs
