"""Building blocks of networks. The only file that subclasses torch classes, hence imported late."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from dqn_runner.types import FloatArray


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


class ChannelsFirst(nn.Module):
    """Images [batch, height, width, channels] to [batch, channels, height, width]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A view, nothing is copied."""
        return x.movedim(-1, -3)


def mlp(sizes: list[int]) -> list[nn.Module]:
    """Linear layers through `sizes` with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [Linear(inputs, outputs), nn.ReLU()]
    return layers[:-1]


def convolutions(
    shape: tuple[int, ...], channels_last: bool, layers: list[tuple[int, int, int]]
) -> tuple[list[nn.Module], int]:
    """ReLU convolutions given as (channels, kernel, stride), flattened; and how many features they leave."""
    height, width, channels = shape if channels_last else (*shape[1:], shape[0])
    modules: list[nn.Module] = [ChannelsFirst()] if channels_last else []
    for out_channels, kernel, stride in layers:
        modules += [nn.Conv2d(channels, out_channels, kernel, stride), nn.ReLU()]
        height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
        channels = out_channels
    return [*modules, nn.Flatten()], channels * height * width


class FlatNetwork:
    """A network as a function of one flat parameter vector and observations.

    The module is a shell: its parameters are taken out, and each call lays views of the given vector
    in their place. That is what `torch.func.functional_call` does, at a tenth of its cost.
    """

    def __init__(self, module: nn.Module, num_actions: int, width: int) -> None:
        """Take the parameters out of `module`; their values become `self.initial` [parameters]."""
        parts: dict[str, nn.Module] = dict(module.named_modules())  # pyright: ignore[reportUnknownArgumentType]
        for name, part in parts.items():
            if getattr(part, "running_mean", None) is not None:
                raise ValueError(
                    f"network layer '{name}' ({type(part).__name__}) keeps running statistics, which a "
                    "flat parameter vector cannot hold; use LayerNorm or GroupNorm"
                )
        self.module = module
        self.outputs = (num_actions, width)
        self._places: list[tuple[dict[str, object], str, torch.Size]] = []
        values: list[torch.Tensor] = []
        for owner in parts.values():
            for name, parameter in list(owner.named_parameters(recurse=False)):
                delattr(owner, name)
                self._places.append((owner.__dict__, name, parameter.shape))
                values.append(parameter.detach().reshape(-1))
        self._sizes = [value.numel() for value in values]
        self.initial = torch.cat(values)

    def __call__(self, flat: torch.Tensor, obs: torch.Tensor) -> torch.Tensor:
        """Outputs [batch, actions, width] for observations [batch, *obs_shape]; uint8 is scaled to [0, 1]."""
        if obs.dtype is torch.uint8:
            obs = obs.to(torch.float32) / 255
        elif obs.dtype is not torch.float32:
            obs = obs.to(torch.float32)
        for (attributes, name, shape), value in zip(
            self._places, torch.split(flat, self._sizes, -1), strict=True
        ):
            attributes[name] = value.view(shape)
        return self.module(obs).unflatten(-1, self.outputs)

    def numpy_forward(self, flat: torch.Tensor) -> Callable[[FloatArray], FloatArray] | None:
        """The same function on numpy arrays, sharing the memory of `flat`; None if it is not a plain MLP.

        For a single observation this takes a quarter of the time that torch needs.
        """
        steps: list[Callable[[FloatArray], FloatArray]] = []
        parameters: Iterator[FloatArray] = (
            value.view(shape).numpy()
            for (_, _, shape), value in zip(self._places, torch.split(flat, self._sizes), strict=True)
        )
        for layer in self.module.children() if isinstance(self.module, nn.Sequential) else [None]:
            if isinstance(layer, Linear):
                steps.append(_affine(next(parameters), next(parameters)))
            elif isinstance(layer, nn.ReLU):
                steps.append(_relu)
            elif isinstance(layer, nn.Flatten):
                steps.append(_flatten)
            else:
                return None

        def forward(obs: FloatArray) -> FloatArray:
            for step in steps:
                obs = step(obs)
            return obs.reshape(len(obs), *self.outputs)

        return forward


def _affine(weight: FloatArray, bias: FloatArray) -> Callable[[FloatArray], FloatArray]:
    return lambda x: x @ weight + bias


def _relu(x: FloatArray) -> FloatArray:
    return np.maximum(x, 0, out=x)


def _flatten(x: FloatArray) -> FloatArray:
    return x.reshape(len(x), -1)
