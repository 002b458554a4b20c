"""A network as a function of one flat vector of parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from torch import nn

from dqn_runner.agent.networks.modules.layers import ImplicitQuantileHead, Linear, NoisyLinear
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import Array, FloatArray


class FlatNetwork:
    """A network as a function of its parameters, which are views of one flat vector, and observations.

    The module is a shell: its parameters are taken out, and each call lays the given ones in their
    place. That is what `torch.func.functional_call` does, at a tenth of its cost. A plain MLP does not
    need the shell: it is read off the module as a list of steps, for torch and for numpy.
    """

    def __init__(self, module: nn.Module) -> None:
        """Take the parameters out of `module`; their values become `self.initial` [parameters]."""
        self.module = module.eval()
        self._steps = _mlp_steps(module)
        self._places: list[tuple[dict[str, object], str, int]] = []
        values: dict[int, torch.Tensor] = {}
        for name, part in dict[str, nn.Module](module.named_modules()).items():  # pyright: ignore[reportUnknownArgumentType]
            if getattr(part, "running_mean", None) is not None:
                raise UserError(
                    f"network layer '{name}' ({type(part).__name__}) keeps running statistics, which a "
                    "flat parameter vector cannot hold; use LayerNorm or GroupNorm"
                )
            for key, parameter in list(part.named_parameters(recurse=False)):
                delattr(part, key)
                values.setdefault(id(parameter), parameter)  # one that two layers share is kept once
                self._places.append((part.__dict__, key, list(values).index(id(parameter))))
        self._noisy = [part for part in module.modules() if isinstance(part, NoisyLinear)]
        self.noise_size = sum(layer.noise_size for layer in self._noisy)
        """Random numbers that one call takes, if its layers are noisy."""
        self.takes_taus = isinstance(module, ImplicitQuantileHead)
        """Whether it can be asked for quantiles at any taus."""
        self._shapes = [value.shape for value in values.values()]
        self.initial = torch.cat([value.detach().reshape(-1) for value in values.values()])

    def views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """The parameters as views of a vector [*runs, parameters], each [*runs, *shape]."""
        pieces = torch.split(flat, [shape.numel() for shape in self._shapes], -1)
        lead = flat.shape[:-1]
        return [piece.view((*lead, *shape)) for piece, shape in zip(pieces, self._shapes, strict=True)]

    def __call__(
        self,
        params: Sequence[torch.Tensor],
        obs: torch.Tensor,
        noise: torch.Tensor | None = None,
        taus: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Outputs [batch, actions * outputs_per_action] for observations [batch, *obs_shape]; uint8 becomes [0, 1].

        `noise` [noise_size] is standard normal; without it noisy layers take their mean weights. With
        `taus` [batch, n] a network of quantiles gives [batch, actions * n].
        """
        if obs.dtype is torch.uint8:
            obs = obs.to(torch.float32) / 255
        elif obs.dtype is not torch.float32:
            obs = obs.to(torch.float32)
        if taus is not None and not self.takes_taus:
            raise UserError(
                "agent.loss asks for quantiles at taus, which agent.network does not take; set "
                "agent.network.cosine_embedding_dim=64"
            )
        if self._steps is not None:
            return _take(self._steps, params, obs)
        for attributes, name, index in self._places:
            attributes[name] = params[index]
        first = 0
        for layer in self._noisy:
            layer.noise = None if noise is None else noise[first : first + layer.noise_size]
            first += layer.noise_size
        return self.module(obs) if taus is None else self.module(obs, taus)

    def numpy_forward(self, flat: torch.Tensor) -> Callable[[Array], FloatArray] | None:
        """The same function on numpy arrays, sharing the memory of `flat`; None if it is not a plain MLP.

        For a single observation this takes a quarter of the time that torch needs.
        """
        if self._steps is None:
            return None
        params: list[FloatArray] = [view.numpy() for view in self.views(flat)]
        steps = self._steps

        def forward(obs: Array) -> FloatArray:
            x: FloatArray = obs.reshape(len(obs), -1).astype(np.float32, copy=False)
            if obs.dtype == np.uint8:
                x = x / np.float32(255)
            if len(obs) == 1:
                x = x[0]  # products with a vector cost half of those with a matrix of one row
            left = iter(params)
            for step in steps:
                if step in ("affine", "linear"):
                    weight = next(left)
                    x = x @ (weight if step == "affine" else weight.T)
                    x += next(left)
                elif step == "relu":
                    np.maximum(x, _ZERO, out=x)
            return x.reshape(len(obs), -1)

        return forward


_ZERO = np.zeros((), np.float32)


def _take(steps: list[str], params: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """A plain MLP on [batch, *obs_shape]."""
    left = iter(params)
    for step in steps:
        if step == "affine":
            weight = next(left)
            x = torch.addmm(next(left), x, weight)
        elif step == "linear":
            x = nn.functional.linear(x, next(left), next(left))
        else:
            x = torch.relu_(x) if step == "relu" else x.flatten(1)
    return x


def _mlp_steps(module: nn.Module) -> list[str] | None:
    """A plain MLP as its steps (flatten, affine, linear, relu); None for any other module."""
    names: dict[type, str] = {
        nn.Flatten: "flatten",
        Linear: "affine",
        nn.Linear: "linear",
        nn.ReLU: "relu",
    }
    layers = set(cast("Iterable[nn.Module]", module.modules()))
    if type(module) is not nn.Sequential or len(layers) != len(module) + 1:
        return None
    params = [param for layer in layers for param in layer.parameters(recurse=False)]
    if len(params) != len(list(module.parameters())):
        return None  # a weight that two layers share would be read once
    if any(vars(layer)["_forward_hooks"] or vars(layer)["_forward_pre_hooks"] for layer in layers):
        return None
    if any(isinstance(layer, nn.Linear) and layer.bias is None for layer in module):  # pyright: ignore[reportUnnecessaryComparison]
        return None
    steps = [names.get(type(layer), "") for layer in module]
    pairs = list(pairwise(["", *steps]))
    fresh = all(before in ("affine", "linear") for before, step in pairs if step == "relu")  # in place
    first = all(before == "" for before, step in pairs if step == "flatten")
    return steps if all(steps) and fresh and first else None
