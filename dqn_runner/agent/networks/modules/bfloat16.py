"""A network whose convolutions multiply bfloat16 numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dqn_runner.agent.networks.base import NetworkFunction, Params
from dqn_runner.agent.networks.modules.flat_network import CONVOLUTIONS, FlatNetwork


class _Switch:
    """Whether convolutions multiply bfloat16 numbers at the moment."""

    is_on = False


def with_bfloat16_convolutions(network: FlatNetwork) -> NetworkFunction:
    """The same function, whose convolutions round their inputs and parameters; they return float32.

    It has the modules of `network`, in which whatever a user has attached to them works as before.
    """
    switch, device_type = _Switch(), network.initial.device.type
    for part in network.module.modules():
        if isinstance(part, CONVOLUTIONS):
            part.forward = _switchable(part.forward, switch, device_type)  # pyright: ignore[reportAttributeAccessIssue]

    def evaluate(
        params: Params, obs: torch.Tensor, noise: torch.Tensor | None = None, taus: torch.Tensor | None = None
    ) -> torch.Tensor:
        switch.is_on = True
        try:
            return network(params, obs, noise, taus)
        finally:
            switch.is_on = False

    return evaluate


def _switchable(forward: Callable[..., Any], switch: _Switch, device_type: str) -> Callable[..., Any]:
    def convolution(*arguments: Any, **options: Any) -> Any:
        if not switch.is_on:
            return forward(*arguments, **options)
        with torch.autocast(device_type, torch.bfloat16, cache_enabled=False):
            output = forward(*arguments, **options)
        return output.float() if getattr(output, "dtype", None) is torch.bfloat16 else output

    return convolution
