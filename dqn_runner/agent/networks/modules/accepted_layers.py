"""Which layers and parameters a network may have, whose parameters are one vector and which is never trained.

Networks are always in the evaluation mode of torch: acting and learning evaluate the same function.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm

from dqn_runner.core.exceptions import UserError


def check_layer(name: str, part: nn.Module) -> None:
    """Raise UserError for a layer that keeps running statistics, or acts in the training mode only."""
    if getattr(part, "running_mean", None) is not None:
        raise UserError(
            f"network layer '{name}' ({type(part).__name__}) keeps running statistics, which a "
            "flat parameter vector cannot hold; use LayerNorm or GroupNorm"
        )
    if _normalises_in_training_mode(part):
        raise UserError(
            f"network layer '{name}' ({type(part).__name__}) has a spectral norm, whose estimate changes in "
            "the training mode of torch only, and networks are always in the evaluation mode; remove it, or "
            "divide by torch.linalg.matrix_norm(weight, 2) in forward"
        )
    if remedy := _only_in_training_mode(part):
        raise UserError(
            f"network layer '{name}' ({type(part).__name__}) has no effect: networks are always in "
            f"the evaluation mode of torch; remove it or set {remedy}"
        )


def check_dtypes(module: nn.Module) -> None:
    """Raise UserError if the parameters that are learned have different dtypes."""
    learned = [(name, value.dtype) for name, value in module.named_parameters() if value.requires_grad]
    for name, dtype in learned[1:]:
        if dtype != learned[0][1]:
            raise UserError(
                f"network parameters have different dtypes ('{learned[0][0]}' {learned[0][1]}, '{name}' "
                f"{dtype}), and one vector holds them all; make the network with one, as in .float()"
            )


def _normalises_in_training_mode(part: nn.Module) -> bool:
    """Whether torch's spectral norm, of either form, estimates the largest singular value of a weight."""
    if isinstance(part, nn.utils.parametrizations._SpectralNorm):  # pyright: ignore[reportPrivateUsage]
        return True
    hooks: dict[int, Any] = vars(part)["_forward_pre_hooks"]
    return any(isinstance(hook, SpectralNorm) for hook in hooks.values())


def _only_in_training_mode(part: nn.Module) -> str | None:
    """How to turn off what a layer does in the training mode of torch only; None if it does nothing there."""
    if isinstance(part, nn.RReLU):
        return None if part.lower == part.upper else "equal lower and upper slopes"
    if isinstance(part, nn.modules.dropout._DropoutNd):  # pyright: ignore[reportPrivateUsage]
        return "p=0" if part.p > 0 else None
    dropout: Any = getattr(part, "dropout", None)  # of attention and recurrent layers; a layer in others
    return "dropout=0" if isinstance(dropout, float) and dropout > 0 else None
