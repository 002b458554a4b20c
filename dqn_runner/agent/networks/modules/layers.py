"""Layers of networks, and functions that build stacks of layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import cast

import torch
from torch import nn

MakeLinear = Callable[[int, int], nn.Module]
"""A function from the numbers of inputs and outputs to a fully connected layer."""


class Linear(nn.Module):
    """x @ weight + bias with `weight` [inputs, outputs]: one matrix product without a transpose."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Initial values are uniform within 1/sqrt(inputs), as in `torch.nn.Linear`."""
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, inputs] to [batch, outputs]."""
        return torch.addmm(self.bias, x, self.weight)


class NoisyLinear(nn.Module):
    """A linear layer with factorised Gaussian noise in its weights (Fortunato et al. 2018, eq. 9-11)."""

    noise: torch.Tensor | None = None
    """[inputs + outputs] standard normal, to be set before a call; None: the mean weights."""

    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        """Initial means are uniform within 1/sqrt(inputs), deviations `std`/sqrt(inputs) (section 3.2)."""
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
        """A view of the images, without a copy."""
        return x.movedim(-1, -3)


class SpectralConv2d(nn.Conv2d):
    """A convolution whose kernel is divided by its largest singular value (Miyato et al. 2018).

    The singular value is computed exactly instead of by power iteration, so that the layer has no state.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[batch, channels, height, width] to the same with other channels."""
        rows = self.weight.flatten(1)
        squares = cast("torch.Tensor", torch.linalg.eigvalsh(rows @ rows.mT))  # a third of an SVD's time
        largest = squares[-1].sqrt()
        return self._conv_forward(input, self.weight / largest, self.bias)


class Residual(nn.Module):
    """The sum of x and two convolutions of x, each after a ReLU (Espeholt et al. 2018, figure 3)."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        """The convolutions must keep the shape."""
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, channels, height, width] to the same shape."""
        return x + self.second(torch.relu(self.first(torch.relu(x))))


def plain_linear(inputs: int, outputs: int) -> nn.Module:
    """A fully connected layer. With few outputs, weights [outputs, inputs] are faster."""
    return nn.Linear(inputs, outputs) if outputs < 16 else Linear(inputs, outputs)


def noisy_linear(std: float) -> MakeLinear:
    """A function that makes noisy layers with the initial deviation `std`."""
    return lambda inputs, outputs: NoisyLinear(inputs, outputs, std)


def hidden_layers(sizes: list[int], linear: MakeLinear, layer_norm: bool) -> list[nn.Module]:
    """Fully connected layers from sizes[0] to sizes[-1], each with an optional norm and a ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        norm = [nn.LayerNorm(outputs)] if layer_norm else []
        layers += [linear(inputs, outputs), *norm, nn.ReLU()]
    return layers


def convolutions(
    shape: tuple[int, ...], channels_last: bool, layers: list[tuple[int, int, int]], layer_norm: bool
) -> tuple[list[nn.Module], int]:
    """ReLU convolutions given as (channels, kernel, stride), flattened, and their number of features."""
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
    shape: tuple[int, ...],
    channels_last: bool,
    stage_channels: list[int],
    layer_norm: bool,
    spectral_norm: bool,
) -> tuple[list[nn.Module], int]:
    """The residual network of Espeholt et al. 2018 (figure 3), flattened, and its number of features.

    `stage_channels` are the channels of its stages.
    """
    height, width, channels = shape if channels_last else (*shape[1:], shape[0])
    conv = SpectralConv2d if spectral_norm else nn.Conv2d
    modules: list[nn.Module] = [ChannelsFirst()] if channels_last else []
    for outputs in stage_channels:
        modules += [nn.Conv2d(channels, outputs, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
        for _ in range(2):
            first, second = conv(outputs, outputs, 3, padding=1), conv(outputs, outputs, 3, padding=1)
            modules.append(Residual(first, second))
        if layer_norm:
            modules.append(nn.GroupNorm(1, outputs))
        height, width, channels = (height + 1) // 2, (width + 1) // 2, outputs
    return [*modules, nn.ReLU(), nn.Flatten()], channels * height * width
