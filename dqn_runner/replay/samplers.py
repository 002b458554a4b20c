"""Samplers: how a replay buffer draws its batches. Each sampler has its own file, with its options."""

from __future__ import annotations

from typing import Protocol

from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import State
from dqn_runner.core.types import IntArray


class Sampler(Protocol):
    """Draws slots of a ring buffer, with replacement."""

    def sample(self, batch_size: int, step: int) -> tuple[IntArray, torch.Tensor]:
        """Slots [batch_size] and their weights in the loss [batch_size] float32, at env step `step`."""
        ...

    def update(self, slots: IntArray, priority: torch.Tensor) -> None:
        """Set the new priorities of the rows in `slots`, which `sample` returned."""
        ...

    def state_dict(self) -> State:
        """The priorities and the state of the random generator."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Restore the sampler; the ring buffer must have been restored before."""
        ...
