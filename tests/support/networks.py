"""Networks and observations for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dqn_runner.agent.networks.base import Network
from dqn_runner.agent.networks.modules.flat_network import FlatNetwork
from dqn_runner.core.types import EnvSpec


def flat(part: Network, spec: EnvSpec, outputs_per_action: int = 1) -> FlatNetwork:
    return FlatNetwork(part.build(spec, outputs_per_action))


def outputs_of(network: FlatNetwork, params: torch.Tensor, obs: torch.Tensor) -> torch.Tensor:
    """Outputs of the network with the parameter vector `params`."""
    return network(network.views(params), obs)


def observations(spec: EnvSpec, n: int = 5) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    if spec.obs_dtype == "float32":
        return rng.normal(size=(n, *spec.obs_shape)).astype(np.float32)
    high = 256 if spec.obs_dtype == "uint8" else 2
    return rng.integers(high, size=(n, *spec.obs_shape)).astype(spec.obs_dtype)
