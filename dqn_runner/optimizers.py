"""First-order optimizers over one flat parameter vector; importing `torch.optim` would cost a second."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from dqn_runner.lazy import torch
from dqn_runner.registry import option

Moments = dict[str, "torch.Tensor"]


class Optimizer(Protocol):
    """A rule that turns gradients into steps; every tensor is [*runs, parameters]."""

    def init(self, params: torch.Tensor) -> Moments:
        """The moments before the first step."""
        ...

    def step(
        self,
        params: torch.Tensor,
        grad: torch.Tensor,
        moments: Moments,
        count: int,
        learning_rate: torch.Tensor,
    ) -> None:
        """Step number `count` (from 1), in place; `learning_rate` is [*runs, 1]."""
        ...


@option("agent/optimizer", "adam")
@dataclass(kw_only=True)
class Adam:
    """Adam (Kingma & Ba 2015, Algorithm 1)."""

    beta1: float = 0.9
    """Decay of the mean of gradients."""
    beta2: float = 0.999
    """Decay of the mean of squared gradients."""
    eps: float = 1e-8
    """Added to the root of the mean square."""

    def init(self, params: torch.Tensor) -> Moments:
        """Zero first and second moments."""
        return {"mean": torch.zeros_like(params), "square": torch.zeros_like(params)}

    def step(
        self,
        params: torch.Tensor,
        grad: torch.Tensor,
        moments: Moments,
        count: int,
        learning_rate: torch.Tensor,
    ) -> None:
        """One bias-corrected step, in place."""
        mean, square = moments["mean"], moments["square"]
        mean.lerp_(grad, 1 - self.beta1)
        square.mul_(self.beta2).addcmul_(grad, grad, value=1 - self.beta2)
        scale = square.sqrt().mul_(1 / math.sqrt(1 - self.beta2**count)).add_(self.eps)
        params.sub_(torch.div(mean, scale).mul_(learning_rate / (1 - self.beta1**count)))


@option("agent/optimizer", "rmsprop")
@dataclass(kw_only=True)
class RMSprop:
    """RMSprop, centred as in Mnih et al. 2015 (Graves 2013, eq. 38-41)."""

    decay: float = 0.95
    """Decay of the means of gradients and squared gradients."""
    eps: float = 0.01
    """Added to the root of the mean square."""
    centered: bool = True
    """Divide by the standard deviation of the gradient, not by its root mean square."""

    def init(self, params: torch.Tensor) -> Moments:
        """Zero first and second moments."""
        return {"mean": torch.zeros_like(params), "square": torch.zeros_like(params)}

    def step(
        self,
        params: torch.Tensor,
        grad: torch.Tensor,
        moments: Moments,
        count: int,
        learning_rate: torch.Tensor,
    ) -> None:
        """One step, in place; `eps` is added outside the root, as torch does."""
        mean, square = moments["mean"], moments["square"]
        square.mul_(self.decay).addcmul_(grad, grad, value=1 - self.decay)
        scale = square
        if self.centered:
            mean.lerp_(grad, 1 - self.decay)
            scale = square.addcmul(mean, mean, value=-1).clamp_(min=0.0)
        params.sub_(torch.div(grad, scale.sqrt().add_(self.eps)).mul_(learning_rate))
