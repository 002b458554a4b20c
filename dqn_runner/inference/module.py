"""The network of an agent as an ordinary torch module, for code that knows nothing of dqn_runner."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.agent.losses.base import Loss
from dqn_runner.agent.network_building import build_network
from dqn_runner.agent.observation_normalizer import LIMIT
from dqn_runner.core.observation_layout import ObservationLayout


class QNetwork(nn.Module):
    """Observations [n, *obs_shape], as the environment returns them, to action values [n, actions]."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, network: nn.Module, loss: Loss, divisor: float, normalization: Any) -> None:
        """`divisor` scales observations; `normalization` are their mean and deviation, or None."""
        super().__init__()
        self.network = network
        self._loss = loss
        self._divisor = divisor
        self._normalizes = _register_normalization(self, normalization)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """Action values [n, actions]."""
        if self._normalizes:
            x = ((obs.double() - self.mean) / self.deviation).clamp(-LIMIT, LIMIT).float()
        else:
            x = obs.float()
            if self._divisor != 1.0:
                x = x / self._divisor
        return self._loss.q_values(self.network(x))


class MultiInputQNetwork(nn.Module):
    """Entries of a Dict observation [n, ...], by name, to action values [n, actions].

    Entries are as the environment returns them; categories are int64.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, network: nn.Module, loss: Loss, layout: ObservationLayout, normalization: Any) -> None:
        """`normalization` are the mean and deviation of the vectors in `layout`, or None."""
        super().__init__()
        self.network = network
        self._loss = loss
        self._layout = layout
        self._normalizes = _register_normalization(self, normalization)

    def forward(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Action values [n, actions]."""
        entries: dict[str, torch.Tensor] = {}
        first = 0
        for entry in self._layout.entries:
            value = obs[entry.name]
            if entry.sizes:
                value = value - torch.tensor(entry.start, device=value.device).reshape(entry.shape)
            elif entry.is_vector and self._normalizes:
                size = math.prod(entry.shape)
                value = self._normalized(value, slice(first, first + size))
                first += size
            entries[entry.name] = value
        return self._loss.q_values(self.network(self._layout.inputs(entries)))

    def _normalized(self, value: torch.Tensor, part: slice) -> torch.Tensor:
        shape = value.shape[1:]
        mean, deviation = (each[..., part].reshape(shape) for each in (self.mean, self.deviation))
        return ((value.double() - mean) / deviation).clamp(-LIMIT, LIMIT).float()


def make_module(agent: DQNAgent, obs_dtype: str) -> QNetwork | MultiInputQNetwork:
    """Build the network of `agent` again, with copies of its parameters."""
    network = build_network(agent.config, agent.spec)
    parameters = {id(parameter): parameter for _, parameter in _in_order(network)}
    with torch.no_grad():
        views = agent.network.views(agent.learner.online)
        for parameter, view in zip(parameters.values(), views, strict=True):
            parameter.copy_(view)
        network.load_state_dict(agent.network.buffers(), strict=False)
    if (layout := agent.spec.layout) is not None:
        return MultiInputQNetwork(network, agent.config.loss, layout, agent.normalization()).eval()
    divisor = 255.0 if obs_dtype == "uint8" else 1.0
    return QNetwork(network, agent.config.loss, divisor, agent.normalization()).eval()


def _in_order(network: nn.Module) -> Any:
    """The parameters that are learned, in the order of `FlatNetwork.views`."""
    for part in network.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.requires_grad:
                yield name, parameter


def _register_normalization(module: nn.Module, normalization: Any) -> bool:
    """Add mean and deviation as buffers, which every export contains; returns whether they are used."""
    mean, deviation = normalization or (np.zeros(1), np.ones(1))
    module.register_buffer("mean", torch.from_numpy(np.array(mean)))
    module.register_buffer("deviation", torch.from_numpy(np.array(deviation)))
    return normalization is not None
