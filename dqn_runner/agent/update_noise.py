"""The random numbers of one update: noise for noisy layers, and quantile fractions (taus).

Why they are drawn before the update. An update (`learner.make_update`) is a function of its arguments alone.
This makes it reproducible and allows `torch.func.vmap` to run it for several runs at once, but it means that
a network cannot use a random generator while it is evaluated. Instead, `draw_noise` draws all random numbers
of an update beforehand, and the update gets them as an argument of type `UpdateNoise`.

How many there are. This depends on the loss: Q-learning evaluates networks twice, double Q-learning three
times, and IQN also needs taus. A loss does not declare it. When the agent is created, `count_noise` evaluates
the loss once and counts the calls of networks and the taus that it requests. Hence a loss must make the same
calls in every update.

In which order they are used. A loss gets its online and its target network as two `BoundNetwork`s, which
share one `NoiseSource`. The i-th call of either network uses row i of `UpdateNoise.layers`, and each call of
`sample_taus(n)` uses the next n columns of `UpdateNoise.taus`. No random number is used twice, so the noise
of one call is independent of that of the others (Fortunato et al. 2018, section 3.1).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from dqn_runner.agent.losses.base import Loss
from dqn_runner.agent.networks.base import NetworkFunction, Params
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.types import Transition


class NoiseRequirements(NamedTuple):
    """How many random numbers a loss needs in one update."""

    calls: int
    """Number of network calls; each needs noise for all noisy layers of the network."""
    taus: int
    """Number of taus per sample."""


class UpdateNoise(NamedTuple):
    """The random numbers of one update."""

    layers: torch.Tensor
    """[*runs, network calls, noise_size], standard normal."""
    taus: torch.Tensor
    """[*runs, batch, taus], uniform between 0 and 1."""


class NoiseSource(Protocol):
    """Passes random numbers to the networks of one update, in the order of their calls."""

    def layer_noise(self) -> torch.Tensor | None:
        """The noise [noise_size] of the next network call; None for the mean weights of noisy layers."""
        ...

    def sample_taus(self, count: int) -> torch.Tensor:
        """The next taus [batch, count]."""
        ...


class BoundNetwork(NamedTuple):
    """A network with its parameters and a source of noise: the `QFunction` that a loss gets."""

    network: NetworkFunction
    params: Params
    source: NoiseSource

    def __call__(self, obs: torch.Tensor, taus: torch.Tensor | None = None) -> torch.Tensor:
        """Outputs for observations [batch, *obs_shape], with the next noise of the source."""
        return self.network(self.params, obs, self.source.layer_noise(), taus)

    def sample_taus(self, count: int) -> torch.Tensor:
        """The next taus [batch, count] of the source."""
        return self.source.sample_taus(count)


def bind_networks(
    network: NetworkFunction, online: Params, target: Params, noise: UpdateNoise | None
) -> tuple[BoundNetwork, BoundNetwork]:
    """The online and the target network of one update, which share the random numbers of `noise`."""
    source = _DrawnNoise(noise)
    return BoundNetwork(network, online, source), BoundNetwork(network, target, source)


def count_noise(
    network: NetworkFunction, params: Params, loss: Loss, transition: Transition
) -> NoiseRequirements:
    """Evaluate `loss` once, on any batch, and count the random numbers that its networks need."""
    counter = _NoiseCounter(transition.reward)
    bound = BoundNetwork(network, params, counter)
    with torch.no_grad():
        loss(bound, bound, transition)
    return NoiseRequirements(counter.calls, counter.taus)


def draw_noise(
    requirements: NoiseRequirements, noise_size: int, batch_size: int, rng: np.random.Generator
) -> UpdateNoise | None:
    """Draw the random numbers of one update; None if it needs none.

    `noise_size` is the number of random numbers for the noisy layers in one call of the network.
    """
    if not noise_size and not requirements.taus:
        return None
    layers = rng.standard_normal((requirements.calls, noise_size), np.float32)
    taus = rng.random((batch_size, requirements.taus), np.float32)
    return UpdateNoise(torch.from_numpy(layers), torch.from_numpy(taus))


class _DrawnNoise:
    """Passes on the numbers of an `UpdateNoise`."""

    def __init__(self, noise: UpdateNoise | None) -> None:
        self._noise = noise
        self._calls = 0
        self._taus = 0

    def layer_noise(self) -> torch.Tensor | None:
        call = self._calls
        self._calls += 1
        return None if self._noise is None else self._noise.layers[call]

    def sample_taus(self, count: int) -> torch.Tensor:
        assert self._noise is not None
        first = self._taus
        self._taus += count
        return self._noise.taus[:, first : first + count]


class _NoiseCounter:
    """Counts requests, and answers them with mean weights and medians."""

    def __init__(self, like: torch.Tensor) -> None:
        """Answers have the batch size and the device of `like` [batch]."""
        self._like = like
        self.calls = 0
        self.taus = 0

    def layer_noise(self) -> None:
        self.calls += 1

    def sample_taus(self, count: int) -> torch.Tensor:
        self.taus += count
        return torch.full((len(self._like), count), 0.5, device=self._like.device)
