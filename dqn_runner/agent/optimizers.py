"""First-order optimizers of one flat parameter vector. Importing `torch.optim` would take a second."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Union

from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.registry import option
from dqn_runner.core.settings import check_settings, setting

Moments = dict[str, "torch.Tensor"]
"""Running averages of gradients [*runs, parameters], by name."""

LearningRate = Union[float, "torch.Tensor"]
"""One number, or one for each run [*runs, 1]."""


class Optimizer(Protocol):
    """An option of the config group `agent/optimizer`; every tensor is [*runs, parameters].

    What it keeps from step to step belongs into the moments, of which each is a vector of this form. Anything
    else is resumed only if it has `state_dict()` and `load_state_dict(state)`.
    """

    def init(self, params: torch.Tensor) -> Moments:
        """Initial moments."""
        ...

    def step(
        self,
        params: torch.Tensor,
        grad: torch.Tensor,
        moments: Moments,
        count: int,
        learning_rate: LearningRate,
    ) -> None:
        """Take step number `count` (from 1): change `params` and `moments` in place, but not `grad`."""
        ...


class CompilableOptimizer(Optimizer, Protocol):
    """An optimizer of dqn_runner itself, whose updates can be compiled; those of others never are."""

    def scalars(self, count: int, learning_rate: float) -> tuple[float, ...]:
        """The numbers that step number `count` (from 1) needs, all of which change between steps."""
        ...

    def functional_step(
        self, params: torch.Tensor, grad: torch.Tensor, moments: Moments, scalars: torch.Tensor
    ) -> tuple[torch.Tensor, Moments]:
        """The same step as a function, for a compiler: returns the new parameters and moments.

        `scalars` [n] are those of the method, in the dtype of the parameters. Computed here from a count,
        they would be computed for each parameter: a compiler fuses all of it into one loop.
        """
        ...


@option("agent/optimizer", "adam")
@dataclass(kw_only=True)
class Adam:
    """Adam (Kingma & Ba 2015, Algorithm 1)."""

    beta1: float = setting(0.9, at_least=0, below=1)
    """Decay rate of the mean of gradients."""
    beta2: float = setting(0.999, at_least=0, below=1)
    """Decay rate of the mean of squared gradients."""
    eps: float = setting(1e-8, above=0)
    """Added to the root mean square."""

    __post_init__ = check_settings

    def init(self, params: torch.Tensor) -> Moments:
        """First and second moments of 0."""
        return {"first": torch.zeros_like(params), "second": torch.zeros_like(params)}

    def step(
        self,
        params: torch.Tensor,
        grad: torch.Tensor,
        moments: Moments,
        count: int,
        learning_rate: LearningRate,
    ) -> None:
        """Take one bias-corrected step in place, with torch's fused kernel: one call for each run."""
        tensors = (params, grad, moments["first"], moments["second"])
        step = torch.full((), float(count), device=params.device)
        if not isinstance(learning_rate, torch.Tensor):
            self._fused(*tensors, step, learning_rate)
            return
        for run, rate in enumerate(learning_rate.flatten()):
            row, row_grad, first, second = (tensor[run] for tensor in tensors)
            self._fused(row, row_grad, first, second, step, rate.item())

    def scalars(self, count: int, learning_rate: float) -> tuple[float, ...]:
        """The size of the step with the first bias correction, and the root of the second."""
        return learning_rate / (1 - self.beta1**count), math.sqrt(1 - self.beta2**count)

    def functional_step(
        self, params: torch.Tensor, grad: torch.Tensor, moments: Moments, scalars: torch.Tensor
    ) -> tuple[torch.Tensor, Moments]:
        """The operations of torch's fused kernel, which a compiler cannot read, in its order."""
        size, correction = scalars
        first = torch.lerp(moments["first"], grad, 1 - self.beta1)
        second = moments["second"] * self.beta2 + (1 - self.beta2) * grad * grad
        params = params - size * first / (second.sqrt() / correction + self.eps)
        return params, {"first": first, "second": second}

    def _fused(
        self,
        params: torch.Tensor,
        grad: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        step: torch.Tensor,
        rate: float,
    ) -> None:
        torch._fused_adam_(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            [params],
            [grad],
            [first],
            [second],
            [],
            [step],
            lr=rate,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
            weight_decay=0.0,
            amsgrad=False,
            maximize=False,
        )


@option("agent/optimizer", "rmsprop")
@dataclass(kw_only=True)
class RMSprop:
    """RMSprop, centred by default as in Mnih et al. 2015 (Graves 2013, eq. 38-41)."""

    decay: float = setting(0.95, at_least=0, below=1)
    """Decay rate of the means of gradients and squared gradients."""
    eps: float = setting(0.01, above=0)
    """Added to the root mean square."""
    centered: bool = True
    """Divide by the standard deviation of the gradient instead of its root mean square."""

    __post_init__ = check_settings

    def init(self, params: torch.Tensor) -> Moments:
        """First and second moments of 0."""
        return {"mean": torch.zeros_like(params), "square": torch.zeros_like(params)}

    def step(
        self,
        params: torch.Tensor,
        grad: torch.Tensor,
        moments: Moments,
        count: int,
        learning_rate: LearningRate,
    ) -> None:
        """Take one step in place; `eps` is added to the root, as in `torch.optim.RMSprop`."""
        mean, square = moments["mean"], moments["square"]
        square.mul_(self.decay).addcmul_(grad, grad, value=1 - self.decay)
        scale = square
        if self.centered:
            mean.lerp_(grad, 1 - self.decay)
            scale = square.addcmul(mean, mean, value=-1).clamp_(min=0.0)
        params.addcdiv_(grad, scale.sqrt().add_(self.eps).div_(learning_rate), value=-1)

    def scalars(self, count: int, learning_rate: float) -> tuple[float, ...]:
        """The learning rate."""
        return (learning_rate,)

    def functional_step(
        self, params: torch.Tensor, grad: torch.Tensor, moments: Moments, scalars: torch.Tensor
    ) -> tuple[torch.Tensor, Moments]:
        """The operations of `step`."""
        (size,) = scalars
        square = moments["square"] * self.decay + (1 - self.decay) * grad * grad
        mean, scale = moments["mean"], square
        if self.centered:
            mean = torch.lerp(mean, grad, 1 - self.decay)
            scale = (square - mean * mean).clamp(min=0.0)
        return params - grad / ((scale.sqrt() + self.eps) / size), {"mean": mean, "square": square}
