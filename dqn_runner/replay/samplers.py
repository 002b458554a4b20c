"""Distributions over the transitions of a replay: which ones are drawn, and what they weigh."""

from __future__ import annotations

from typing import Protocol

from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import State
from dqn_runner.core.types import IntArray


class Sampler(Protocol):
    """UpdateNoise slots of a ring."""

    def sample(self, batch_size: int, step: int) -> tuple[IntArray, torch.Tensor]:
        """Slots [batch_size], and what each weighs in the loss, at env step `step`."""
        ...

    def update(self, slots: IntArray, priority: torch.Tensor) -> None:
        """Take over the new priorities of what was drawn."""
        ...

    def state_dict(self) -> State:
        """Priorities and the generator."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Go on from `state`; the ring holds its rows already."""
        ...
