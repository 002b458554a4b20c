"""Networks of the family for stable-baselines3, written from the papers and apart from dqn_runner."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torchrl.modules import NoisyLinear

MakeLinear = Callable[[int, int], nn.Module]


class Dueling(nn.Module):
    """A stream for the state's value and one for advantages (Wang et al. 2016, eq. 9)."""

    def __init__(self, value: nn.Module, advantage: nn.Module) -> None:
        """Both map features to numbers: one, and one for each action."""
        super().__init__()
        self.value, self.advantage = value, advantage

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Action values [batch, actions]."""
        advantage = self.advantage(features)
        return self.value(features) + advantage - advantage.mean(1, keepdim=True)


class ImplicitQuantiles(nn.Module):
    """Features times the embedding of cosines of tau (Dabney et al. 2018b, eq. 4)."""

    def __init__(self, sizes: list[int], actions: int, cosines: int, taus: int) -> None:
        """`taus` is how many quantiles an action's value is the mean of."""
        super().__init__()
        self.features = nn.Sequential(*hidden_layers(sizes, nn.Linear))
        self.embedding = nn.Linear(cosines, sizes[-1])
        self.head = nn.Linear(sizes[-1], actions)
        self.multiples = math.pi * torch.arange(cosines)
        self.midpoints = (torch.arange(taus) + 0.5) / taus

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Action values [batch, actions]."""
        return self.quantiles(observations, self.midpoints.repeat(len(observations), 1)).mean(1)

    def quantiles(self, observations: torch.Tensor, taus: torch.Tensor) -> torch.Tensor:
        """Quantiles [batch, n, actions] at taus [batch, n]."""
        embedded = functional.relu(self.embedding(torch.cos(taus[..., None] * self.multiples)))
        return self.head(self.features(observations)[:, None] * embedded)


def hidden_layers(sizes: list[int], linear: MakeLinear) -> list[nn.Module]:
    """ReLU layers from sizes[0] to sizes[-1]."""
    return [module for pair in pairwise(sizes) for module in (linear(*pair), nn.ReLU())]


def make_network(options: dict[str, Any], inputs: int, actions: int, taus: int) -> nn.Module:
    """A network with the options of `agent.network`; with taus as inputs if `taus` is not 0."""
    sizes = [inputs, *options["hidden"]]
    if taus:
        return ImplicitQuantiles(sizes, actions, options["cosine_embedding_dim"], taus)
    linear = noisy_linear(options["noisy_std"]) if options["noisy"] else nn.Linear

    def stream(outputs: int) -> nn.Module:
        return nn.Sequential(*hidden_layers(sizes[-2:], linear), linear(sizes[-1], outputs))

    head = Dueling(stream(1), stream(actions)) if options["dueling"] else stream(actions)
    return nn.Sequential(*hidden_layers(sizes[:-1], nn.Linear), head)


def noisy_linear(std: float) -> MakeLinear:
    """A function that makes layers of torchrl with the initial deviation `std`."""
    return lambda inputs, outputs: NoisyLinear(inputs, outputs, std_init=std)
