"""Distributions over the transitions of a replay: which ones are drawn, and what they weigh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.registry import option
from dqn_runner.core.state import State
from dqn_runner.core.types import EnvSpec, IntArray
from dqn_runner.replay import storage
from dqn_runner.replay.buffer import Replay, ReplayBuffer, check_capacity
from dqn_runner.replay.n_step import NStepAccumulator
from dqn_runner.replay.ring_buffer import RingBuffer
from dqn_runner.replay.storage import Saved, make_storage


class UniformSampler:
    """Every row is equally likely and weighs the same."""

    def __init__(self, ring: RingBuffer, rng: np.random.Generator) -> None:
        """UpdateNoise from `ring` by `rng`."""
        self._ring = ring
        self._rng = rng
        self._weight = torch.ones(0)

    def sample(self, batch_size: int, step: int) -> tuple[IntArray, torch.Tensor]:
        """Slots drawn with replacement."""
        ring = self._ring
        slots = self._rng.integers(len(ring), size=batch_size)
        if ring.start > 0 and len(ring) < ring.capacity:  # some slots hold rows that were given up
            slots = (slots + ring.start) % ring.capacity
        if len(self._weight) != batch_size:
            self._weight = torch.full((batch_size,), 1 / batch_size)
        return slots, self._weight

    def update(self, slots: IntArray, priority: torch.Tensor) -> None:
        """There are no priorities to change."""

    def state_dict(self) -> State:
        """The generator."""
        return {"rng": self._rng.bit_generator.state}

    def load_state_dict(self, state: State) -> None:
        """Go on from `state`."""
        self._rng.bit_generator.state = state["rng"]


@option("agent/replay", "uniform")
@dataclass(kw_only=True)
class UniformReplay:
    """Every remembered transition is equally likely (Lin 1992; Mnih et al. 2015)."""

    capacity: int = 50_000
    """Transitions kept; the oldest makes room."""

    def __post_init__(self) -> None:
        """Refuse an empty memory."""
        check_capacity(self.capacity)

    def num_bytes(self, spec: EnvSpec) -> int:
        """Memory that a full replay takes."""
        return storage.num_bytes(self.capacity, spec)

    def saved(self, spec: EnvSpec) -> Saved:
        """What a full replay takes on the disk."""
        return storage.saved(self.capacity, spec)

    def build(
        self, spec: EnvSpec, num_envs: int, gamma: float, n_step: int, rng: np.random.Generator
    ) -> Replay:
        """An empty replay for transitions of `spec`."""
        stored = make_storage(self.capacity, spec, num_envs, n_step)
        return ReplayBuffer(
            stored, NStepAccumulator(num_envs, gamma, n_step), UniformSampler(stored.ring, rng)
        )
