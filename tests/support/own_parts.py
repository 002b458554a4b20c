"""Parts of a user: some draw when they are built, some have a state of their own."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from dqn_runner.replay.uniform import UniformReplay


def drawn() -> list[float]:
    """A number of each global generator."""
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002 (that is the point)


class DrawnNetwork(nn.Module):
    """Has a random projection that no checkpoint stores."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        scale = torch.tensor(drawn()).sum() + torch.from_numpy(np.random.rand(shape[0]))  # noqa: NPY002
        self.register_buffer("scale", scale.float(), persistent=False)
        self.head = nn.Linear(shape[0], outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x * self.scale)


class DrawnExploration:
    """Greedy, and draws when it is built."""

    duration = 0

    def __init__(self) -> None:
        self.drawn = drawn()

    def epsilon(self, step: int) -> float:
        return 0.0

    def __call__(
        self, q_values: Callable[[], Any], shape: tuple[int, int], step: int, rng: Any, mask: Any = None
    ) -> Any:
        return q_values().argmax(-1)


class Choosing:
    """Always returns the same."""

    duration = 0

    def __init__(self, chosen: Any) -> None:
        self.chosen = chosen

    def epsilon(self, step: int) -> float:
        return 0.0

    def __call__(
        self, q_values: Callable[[], Any], shape: tuple[int, int], step: int, rng: Any, mask: Any = None
    ) -> Any:
        return self.chosen


class Repeating:
    """Repeats random actions for a random time: how long, and which, is its state."""

    duration = 0

    def __init__(self, keeps: str = "numbers") -> None:
        self.left, self.action, self.keeps = 0, np.zeros(1, np.int64), keeps

    def epsilon(self, step: int) -> float:
        return 0.0

    def __call__(
        self, q_values: Callable[[], Any], shape: tuple[int, int], step: int, rng: Any, mask: Any = None
    ) -> Any:
        self.left -= 1
        if self.left < 0:
            self.left, self.action = int(rng.integers(40)), rng.integers(shape[1], size=shape[0])
        return self.action.copy()

    def state_dict(self) -> dict[str, Any]:
        return {"left": self.left if self.keeps == "numbers" else {1, 2}, "action": self.action}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert isinstance(state["action"], np.ndarray)
        self.left, self.action = state["left"], state["action"]


class Forgetful:
    """Greedy, with attributes of every kind: some change, and no checkpoint stores them."""

    duration = 0

    def __init__(self) -> None:
        self.constant, self.cached, self.closure = [1, 2], None, lambda: self.calls
        self.large = np.zeros(2**20)
        self.rng = np.random.default_rng(0)
        self.calls = 0

    def epsilon(self, step: int) -> float:
        return 0.0

    def __call__(
        self, q_values: Callable[[], Any], shape: tuple[int, int], step: int, rng: Any, mask: Any = None
    ) -> Any:
        self.cached = torch.arange(3) if self.cached is None else self.cached
        self.calls += 1
        self.large[0] += 1
        return self.rng.integers(shape[1], size=shape[0])


class Slotted:
    """Repeats actions; its attributes are in slots."""

    __slots__ = ("left",)
    duration = 0

    def __init__(self) -> None:
        self.left = 0

    def epsilon(self, step: int) -> float:
        return 0.0

    def __call__(
        self, q_values: Callable[[], Any], shape: tuple[int, int], step: int, rng: Any, mask: Any = None
    ) -> Any:
        self.left += 1
        return np.full(shape[0], self.left % shape[1])


class Forgotten(Slotted):
    """Has one of two methods."""

    def state_dict(self) -> dict[str, Any]:
        return {"left": self.left}


class Averaging(Slotted):
    """Computes with numbers of numpy, and counts how often it is asked for epsilon."""

    __slots__ = ("asked", "mean")

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.asked = np.float32(0), 0

    def epsilon(self, step: int) -> float:
        self.asked += 1
        return 1 / self.asked

    def __call__(
        self, q_values: Callable[[], Any], shape: tuple[int, int], step: int, rng: Any, mask: Any = None
    ) -> Any:
        self.mean = self.mean * 0.999 + 0.001 * float(q_values().max())
        return np.full(shape[0], int(self.mean * 1e6) % shape[1])

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "asked": self.asked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert type(state["mean"]) is np.float32
        self.mean, self.asked = state["mean"], state["asked"]


class Slow:
    """Gradient descent with slow weights, which it keeps itself instead of in its moments."""

    slow: torch.Tensor | None = None

    def init(self, params: torch.Tensor) -> dict[str, torch.Tensor]:
        self.slow = params.clone()
        return {}

    def step(self, params: torch.Tensor, grad: torch.Tensor, moments: Any, count: int, rate: float) -> None:
        assert self.slow is not None
        params.sub_(grad * rate)
        if count % 5 == 0:
            params.copy_(self.slow.lerp_(params, 0.5))

    def state_dict(self) -> dict[str, Any]:
        return {"slow": self.slow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.slow = state["slow"].clone()


class Half:
    """Momentum of 16 bits, and moments of other types."""

    def init(self, params: torch.Tensor) -> dict[str, torch.Tensor]:
        momentum = torch.zeros_like(params, dtype=torch.bfloat16)
        return {"momentum": momentum, "count": torch.tensor(-5), "positive": params > 0}

    def step(self, params: torch.Tensor, grad: torch.Tensor, moments: Any, count: int, rate: float) -> None:
        moments["momentum"].mul_(0.9).add_(grad.to(torch.bfloat16))
        moments["count"].sub_(1)
        moments["positive"].copy_(grad > 0)
        params.sub_(moments["momentum"].float() * rate)


class Lazy(Half):
    """Makes its moments in its first step, as those of torch do."""

    def init(self, params: torch.Tensor) -> dict[str, torch.Tensor]:
        return {}

    def step(self, params: torch.Tensor, grad: torch.Tensor, moments: Any, count: int, rate: float) -> None:
        moments.setdefault("last", grad.clone())


class Marking(Half):
    """Has a moment that is NaN for parameters without a gradient so far."""

    def init(self, params: torch.Tensor) -> dict[str, torch.Tensor]:
        return {**super().init(params), "last": torch.full_like(params, torch.nan)}


class Listing(Half):
    """Makes no dictionary."""

    def init(self, params: torch.Tensor) -> Any:
        return [params]


class Holding(Half):
    """Holds its moments itself too."""

    def init(self, params: torch.Tensor) -> dict[str, torch.Tensor]:
        self.moments = super().init(params)
        self.momentum = self.moments["momentum"]
        return self.moments


class DrawnOptimizer(Slow):
    """Draws the start of its slow weights."""

    def init(self, params: torch.Tensor) -> dict[str, torch.Tensor]:
        self.slow = params + torch.tensor(drawn()).sum()
        return {}


class DrawnReplay(UniformReplay):
    """Draws when it makes its storage."""

    def build(self, *arguments: Any) -> Any:
        self.drawn = drawn()
        return super().build(*arguments)
