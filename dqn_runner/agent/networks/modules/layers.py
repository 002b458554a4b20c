"""Building blocks of networks. The only file that subclasses torch classes, hence imported late."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import cast

import torch
from torch import nn

MakeLinear = Callable[[int, int], nn.Module]
"""From inputs and outputs to a fully connected layer."""


class Linear(nn.Module):
    """x @ weight + bias with `weight` stored [inputs, outputs]: one GEMM without a transpose."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Uniform initial values within 1/sqrt(inputs), torch's default."""
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, inputs] to [batch, outputs]."""
        return torch.addmm(self.bias, x, self.weight)


class NoisyLinear(nn.Module):
    """A linear layer whose weights are noisy by factorised Gaussian noise (Fortunato et al. 2018, eq. 9-11).

    Whoever calls it sets `noise` [inputs + outputs], standard normal, or None for the mean weights.
    """

    noise: torch.Tensor | None = None

    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        """Means uniform within 1/sqrt(inputs), deviations `std`/sqrt(inputs) (section 3.2)."""
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.inputs, self.noise_size = inputs, inputs + outputs
        self.weight = nn.Parameter(torch.empty(inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.weight_std = nn.Parameter(torch.full((inputs, outputs), std * bound))
        self.bias_std = nn.Parameter(torch.full((outputs,), std * bound))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, inputs] to [batch, outputs]."""
        if self.noise is None:
            return torch.addmm(self.bias, x, self.weight)
        scaled = self.noise.sign() * self.noise.abs().sqrt()
        rows, columns = scaled[: self.inputs], scaled[self.inputs :]
        weight = torch.addcmul(self.weight, self.weight_std, rows.unsqueeze(-1) * columns)
        return torch.addmm(torch.addcmul(self.bias, self.bias_std, columns), x, weight)


class ChannelsFirst(nn.Module):
    """Images [batch, height, width, channels] to [batch, channels, height, width]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A view, nothing is copied."""
        return x.movedim(-1, -3)


class Dueling(nn.Module):
    """A state's value and its actions' advantages, added up (Wang et al. 2016, eq. 9)."""

    def __init__(self, value: nn.Module, advantage: nn.Module, num_actions: int) -> None:
        """`value` gives [batch, outputs_per_action], `advantage` [batch, actions * outputs_per_action]."""
        super().__init__()
        self.value, self.advantage, self.num_actions = value, advantage, num_actions

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, features] to [batch, actions * outputs_per_action]; the mean is over actions."""
        value: torch.Tensor = self.value(x).unsqueeze(-2)
        advantage: torch.Tensor = self.advantage(x)
        advantage = advantage.view(len(x), self.num_actions, -1)
        return (value + advantage - advantage.mean(-2, keepdim=True)).flatten(-2)


class ImplicitQuantileHead(nn.Module):
    """Quantiles at any taus: features times an embedded tau (Dabney et al. 2018b, eq. 4)."""

    def __init__(
        self,
        features: nn.Module,
        embedding: nn.Module,
        head: nn.Module,
        cosine_embedding_dim: int,
        num_tau_samples: int,
    ) -> None:
        """`features` and `embedding` (of [batch, cosine_embedding_dim]) give [batch, size], `head` one number per action.

        A call without taus takes the middles of `num_tau_samples` equal parts.
        """
        super().__init__()
        self.features, self.embedding, self.head = features, embedding, head
        self.cosine_embedding_dim, self.num_tau_samples = cosine_embedding_dim, num_tau_samples

    def forward(self, x: torch.Tensor, taus: torch.Tensor | None = None) -> torch.Tensor:
        """Observations and taus [batch, n] to quantiles [batch, actions * n]."""
        if taus is None:
            taus = (torch.arange(self.num_tau_samples) + 0.5) / self.num_tau_samples
            taus = taus.expand(len(x), -1)
        n = taus.shape[-1]
        cosines = torch.cos(math.pi * torch.arange(self.cosine_embedding_dim) * taus.unsqueeze(-1))
        embedded = torch.relu(self.embedding(cosines.flatten(0, 1)))
        features: torch.Tensor = self.features(x)
        product = features.unsqueeze(1) * embedded.view(len(x), n, -1)
        outputs: torch.Tensor = self.head(product.flatten(0, 1))
        return outputs.view(len(x), n, -1).transpose(1, 2).flatten(1)


class SpectralConv2d(nn.Conv2d):
    """A convolution whose kernel is divided by its largest singular value (Miyato et al. 2018).

    The value is computed, not tracked by power iteration, so that the layer keeps no state.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[batch, channels, height, width], as a convolution does."""
        rows = self.weight.flatten(1)
        squares = cast("torch.Tensor", torch.linalg.eigvalsh(rows @ rows.mT))  # a third of an SVD's time
        largest = squares[-1].sqrt()
        return self._conv_forward(input, self.weight / largest, self.bias)


class Residual(nn.Module):
    """x + two convolutions of it, each after a ReLU (Espeholt et al. 2018, figure 3)."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        """The convolutions leave the shape as it is."""
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, channels, height, width] to the same."""
        return x + self.second(torch.relu(self.first(torch.relu(x))))


def plain_linear(inputs: int, outputs: int) -> nn.Module:
    """A fully connected layer; one of few outputs, as heads are, is faster with [outputs, inputs] weights."""
    return nn.Linear(inputs, outputs) if outputs < 16 else Linear(inputs, outputs)


def noisy_linear(std: float) -> MakeLinear:
    """How to make noisy layers with this initial deviation."""
    return lambda inputs, outputs: NoisyLinear(inputs, outputs, std)


def hidden_layers(sizes: list[int], linear: MakeLinear, layer_norm: bool) -> list[nn.Module]:
    """Fully connected layers through `sizes`, each normalised where asked and followed by a ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        norm = [nn.LayerNorm(outputs)] if layer_norm else []
        layers += [linear(inputs, outputs), *norm, nn.ReLU()]
    return layers


def convolutions(
    shape: tuple[int, ...], channels_last: bool, layers: list[tuple[int, int, int]], layer_norm: bool
) -> tuple[list[nn.Module], int]:
    """ReLU convolutions given as (channels, kernel, stride), flattened; and how many features they leave."""
    height, width, channels = shape if channels_last else (*shape[1:], shape[0])
    modules: list[nn.Module] = [ChannelsFirst()] if channels_last else []
    for out_channels, kernel, stride in layers:
        norm = [nn.GroupNorm(1, out_channels)] if layer_norm else []
        modules += [nn.Conv2d(channels, out_channels, kernel, stride), *norm, nn.ReLU()]
        height = max(0, (height - kernel) // stride + 1)
        width = max(0, (width - kernel) // stride + 1)
        channels = out_channels
    return [*modules, nn.Flatten()], channels * height * width


def impala(
    shape: tuple[int, ...], channels_last: bool, depths: list[int], layer_norm: bool, spectral_norm: bool
) -> tuple[list[nn.Module], int]:
    """The residual network of Espeholt et al. 2018 (figure 3), flattened, and its number of features."""
    height, width, channels = shape if channels_last else (*shape[1:], shape[0])
    conv = SpectralConv2d if spectral_norm else nn.Conv2d
    modules: list[nn.Module] = [ChannelsFirst()] if channels_last else []
    for depth in depths:
        modules += [nn.Conv2d(channels, depth, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
        for _ in range(2):
            modules.append(Residual(conv(depth, depth, 3, padding=1), conv(depth, depth, 3, padding=1)))
        if layer_norm:
            modules.append(nn.GroupNorm(1, depth))
        height, width, channels = (height + 1) // 2, (width + 1) // 2, depth
    return [*modules, nn.ReLU(), nn.Flatten()], channels * height * width
