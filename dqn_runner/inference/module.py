"""The network of an agent as an ordinary torch module, for code that knows nothing of dqn_runner."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from dqn_runner.agent.agent import DQNAgent, build_network
from dqn_runner.agent.losses.base import Loss
from dqn_runner.agent.observation_normalizer import LIMIT


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
        self._normalizes = normalization is not None
        mean, deviation = normalization or (np.zeros(1), np.ones(1))
        self.register_buffer("mean", torch.from_numpy(np.array(mean)))
        self.register_buffer("deviation", torch.from_numpy(np.array(deviation)))

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """Action values [n, actions]."""
        if self._normalizes:
            x = ((obs.double() - self.mean) / self.deviation).clamp(-LIMIT, LIMIT).float()
        else:
            x = obs.float()
            if self._divisor != 1.0:
                x = x / self._divisor
        return self._loss.q_values(self.network(x))


def make_module(agent: DQNAgent, obs_dtype: str) -> QNetwork:
    """Build the network of `agent` again, with copies of its parameters."""
    network = build_network(agent.config, agent.spec)
    parameters = {id(parameter): parameter for _, parameter in _in_order(network)}
    with torch.no_grad():
        views = agent.network.views(agent.learner.online)
        for parameter, view in zip(parameters.values(), views, strict=True):
            parameter.copy_(view)
    divisor = 255.0 if obs_dtype == "uint8" else 1.0
    return QNetwork(network, agent.config.loss, divisor, agent.normalization()).eval()


def _in_order(network: nn.Module) -> Any:
    """The parameters in the order of `FlatNetwork.views`."""
    for part in network.modules():
        yield from part.named_parameters(recurse=False)
