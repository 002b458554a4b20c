"""Uniform replay: every transition has the same probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.registry import option
from dqn_runner.core.state import State
from dqn_runner.core.types import EnvSpec, IntArray
from dqn_runner.replay import storage
from dqn_runner.replay.buffer import Replay, build_replay
from dqn_runner.replay.ring_buffer import RingBuffer
from dqn_runner.replay.settings import ReplaySettings
from dqn_runner.replay.storage import DiskUsage


@option("agent/replay", "uniform")
@dataclass(kw_only=True)
class UniformReplay(ReplaySettings):
    """Every stored transition has the same probability (Lin 1992; Mnih et al. 2015)."""

    def num_bytes(self, spec: EnvSpec) -> int:
        """Memory of a full replay in bytes."""
        return storage.num_bytes(self.capacity, spec)

    def disk_usage(self, spec: EnvSpec) -> DiskUsage:
        """Size of a full replay in checkpoints."""
        return storage.disk_usage(self.capacity, spec)

    def build(
        self,
        spec: EnvSpec,
        num_envs: int,
        gamma: float,
        n_step: int,
        rng: np.random.Generator,
        num_frames: int | None = None,
    ) -> Replay:
        """Create an empty replay for transitions of `spec`, which draws with `rng`."""
        return build_replay(
            self.capacity, spec, num_envs, gamma, n_step, lambda ring: UniformSampler(ring, rng), num_frames
        )


class UniformSampler:
    """Draws every row with the same probability and the same weight."""

    def __init__(self, ring: RingBuffer, rng: np.random.Generator) -> None:
        """Draw rows of `ring` with `rng`."""
        self._ring = ring
        self._rng = rng
        self._weight = torch.ones(0)

    def sample(self, batch_size: int, step: int) -> tuple[IntArray, torch.Tensor]:
        """Slots [batch_size], drawn with replacement, and weights of 1 / batch_size."""
        ring = self._ring
        slots = self._rng.integers(len(ring), size=batch_size)
        if ring.start > 0 and len(ring) < ring.capacity:  # the rows do not start at slot 0
            slots = (slots + ring.start) % ring.capacity
        if self._weight.shape[0] != batch_size:
            self._weight = torch.full((batch_size,), 1 / batch_size)
        return slots, self._weight

    def update(self, slots: IntArray, priority: torch.Tensor) -> None:
        """Do nothing: uniform sampling has no priorities."""

    def state_dict(self) -> State:
        """The state of the random generator."""
        return {"rng": self._rng.bit_generator.state}

    def load_state_dict(self, state: State) -> None:
        """Restore the random generator."""
        self._rng.bit_generator.state = state["rng"]
