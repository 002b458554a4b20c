"""Parts of a user: some draw when they are built, some have a state of their own."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn


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
