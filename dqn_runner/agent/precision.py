"""Chooses the arithmetic of the convolutions in an update."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.processor import features

if TYPE_CHECKING:
    from dqn_runner.agent.networks.base import NetworkFunction
    from dqn_runner.agent.networks.modules.flat_network import FlatNetwork

PRECISIONS = ("float32", "bfloat16")
BFLOAT16_FEATURES = {"avx512_bf16", "amx_bf16", "bf16"}
"""Instructions of processors that multiply bfloat16; without one of them a product takes 60 times as long."""
_INSTEAD = "set agent.precision=float32"


def check_precision(name: str) -> None:
    """Raise UserError for an unknown precision."""
    if name not in PRECISIONS:
        raise UserError(f"agent.precision must be {' or '.join(PRECISIONS)}, got {name!r}")


def network_of_updates(network: FlatNetwork, precision: str) -> NetworkFunction:
    """The network as updates evaluate it.

    With `bfloat16`, its convolutions multiply bfloat16 numbers. Everything else keeps float32, above all the
    values of actions: in bfloat16, which has 8 bits, one of about 200 would be a multiple of 1.
    Raises UserError for a network without convolutions.
    """
    if precision == "float32":
        return network
    if not network.has_convolutions:
        raise UserError(
            "agent.precision=bfloat16 is for the convolutions of a network, and this one has none; set "
            "agent.precision=float32"
        )
    from dqn_runner.agent.networks.modules.bfloat16 import with_bfloat16_convolutions

    return with_bfloat16_convolutions(network)


def check_hardware(precision: str, device: torch.device) -> None:
    """Raise UserError if updates with this precision would be far slower on the device than with float32."""
    if precision == "float32":
        return
    if device.type == "mps":
        raise UserError(f"agent.precision=bfloat16 is for the CPU and CUDA, not for device=mps; {_INSTEAD}")
    if device.type == "cuda":
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            raise UserError(f"agent.precision=bfloat16: the GPU has no instructions for it; {_INSTEAD}")
    elif not BFLOAT16_FEATURES & features():
        known = ", ".join(sorted(BFLOAT16_FEATURES))
        raise UserError(
            f"agent.precision=bfloat16: this processor has no instructions for it ({known}), and updates "
            f"would be many times slower; {_INSTEAD}"
        )
