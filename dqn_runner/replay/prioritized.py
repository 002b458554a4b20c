"""Prioritized replay: the probability of a transition grows with its TD error (Schaul et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dqn_runner.core.exceptions import DivergedError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.registry import option
from dqn_runner.core.settings import setting, within_budget
from dqn_runner.core.state import State
from dqn_runner.core.types import EnvSpec, IntArray
from dqn_runner.replay import storage, sum_tree
from dqn_runner.replay.buffer import Replay, build_replay
from dqn_runner.replay.ring_buffer import RingBuffer
from dqn_runner.replay.settings import ReplaySettings
from dqn_runner.replay.storage import DiskUsage
from dqn_runner.replay.sum_tree import SumTree

_BETA_STEPS = 100_000


@option("agent/replay", "prioritized")
@dataclass(kw_only=True)
class PrioritizedReplay(ReplaySettings):
    """Proportional prioritization: large TD errors are drawn more often (Schaul et al. 2016)."""

    alpha: float = setting(0.6, at_least=0, at_most=1)
    """Exponent of priorities: a transition's probability is proportional to (|delta| + eps)**alpha."""
    beta: float = setting(0.4, at_least=0, at_most=1)
    """Initial exponent of the importance weights (N P)**-beta; it grows linearly to 1."""
    beta_steps: int | None = within_budget(_BETA_STEPS, share=1.0)
    """Env steps until beta is 1, usually the length of the run; null: 100,000, but at most
    trainer.max_steps."""
    eps: float = setting(1e-6, above=0)
    """Added to |delta|, so that transitions without a TD error can still be drawn."""

    def num_bytes(self, spec: EnvSpec) -> int:
        """Memory of a full replay in bytes."""
        return storage.num_bytes(self.capacity, spec) + sum_tree.num_bytes(self.capacity)

    def disk_usage(self, spec: EnvSpec) -> DiskUsage:
        """Size of a full replay in checkpoints; every checkpoint contains all priorities."""
        shared, per_checkpoint = storage.disk_usage(self.capacity, spec)
        return DiskUsage(shared, per_checkpoint + self.capacity * np.dtype(np.float64).itemsize)

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

        def make_sampler(ring: RingBuffer) -> PrioritizedSampler:
            return PrioritizedSampler(
                ring, rng, self.alpha, self.beta, self.beta_steps or _BETA_STEPS, self.eps
            )

        return build_replay(self.capacity, spec, num_envs, gamma, n_step, make_sampler, num_frames)


class PrioritizedSampler:
    """Draws a row with probability proportional to (|delta| + eps)**alpha (Schaul et al. 2016, section 3.3).

    A new row gets the largest priority so far, initially 1, so that it is soon drawn (Algorithm 1).
    """

    def __init__(
        self,
        ring: RingBuffer,
        rng: np.random.Generator,
        alpha: float,
        beta: float,
        beta_steps: int,
        eps: float,
    ) -> None:
        """Draw rows of `ring` with `rng`; `PrioritizedReplay` explains the other arguments."""
        self._ring = ring
        self._rng = rng
        self._alpha = alpha
        self._beta = beta
        self._beta_steps = beta_steps
        self._eps = eps
        self._max_priority = 1.0
        self._tree = SumTree(ring.capacity)
        """For each slot the priority**alpha of its row, 0 for a slot without a row."""
        self._start = 0
        self._stop = 0
        """The tree contains the rows [start, stop)."""

    def sample(self, batch_size: int, step: int) -> tuple[IntArray, torch.Tensor]:
        """Slots, one from each of `batch_size` ranges of equal probability (appendix B.2.1), and weights.

        The importance weight (N P(i))**-beta over the largest of the batch is (p_i / p_min)**-beta.
        """
        self._sync_with_ring()
        fractions = (np.arange(batch_size) + self._rng.random(batch_size)) / batch_size
        slots = self._tree.find(fractions)
        values = self._tree.values[slots]
        weight = (values / values.min()) ** -self._beta_at(step) / batch_size
        return slots, torch.from_numpy(weight.astype(np.float32))

    def update(self, slots: IntArray, priority: torch.Tensor) -> None:
        """Set the priorities |delta| of the rows in `slots`; for a repeated slot the last one counts.

        A slot whose row was dropped since it was drawn is ignored. Raises a DivergedError if a priority is
        not a finite number.
        """
        values = (np.abs(priority.cpu().numpy().astype(np.float64)) + self._eps) ** self._alpha
        largest = values.max()
        if not np.isfinite(largest):
            raise DivergedError("priorities of the replay are infinite or undefined")
        self._sync_with_ring()
        stored = self._tree.values[slots] > 0.0
        self._tree.set(slots[stored], values[stored])
        self._max_priority = max(self._max_priority, float(largest))

    def state_dict(self) -> State:
        """The priorities of all rows, oldest first; the largest priority so far; the random generator."""
        self._sync_with_ring()
        parts = [self._tree.values[part] for part in self._ring.slices(self._start, self._stop)]
        return {
            "priorities": np.concatenate([np.empty(0), *parts]),
            "max_priority": self._max_priority,
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: State) -> None:
        """Restore the priorities and the random generator; the sums are computed from the priorities."""
        ring, priorities = self._ring, np.asarray(state["priorities"])
        self._tree = SumTree(ring.capacity)
        self._start, self._stop = ring.start, ring.stop
        for part in ring.slices(ring.start, ring.stop):
            count = part.stop - part.start
            self._tree.fill(part, priorities[:count])
            priorities = priorities[count:]
        self._max_priority = state["max_priority"]
        self._rng.bit_generator.state = state["rng"]

    def _beta_at(self, step: int) -> float:
        return self._beta + (1.0 - self._beta) * min(1.0, step / self._beta_steps)

    def _sync_with_ring(self) -> None:
        """Remove rows that the ring dropped and add its new rows; called before priorities are used."""
        ring, tree = self._ring, self._tree
        for part in ring.slices(max(self._start, ring.stop - ring.capacity), ring.start):
            tree.fill(part, 0.0)
        for part in ring.slices(max(self._stop, ring.start), ring.stop):
            tree.fill(part, self._max_priority)
        self._start, self._stop = ring.start, ring.stop
