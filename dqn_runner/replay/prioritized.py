"""Distributions over the transitions of a replay: which ones are drawn, and what they weigh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dqn_runner.core.exceptions import DivergedError, UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.registry import option
from dqn_runner.core.state import State
from dqn_runner.core.types import EnvSpec, IntArray
from dqn_runner.replay import storage, sum_tree
from dqn_runner.replay.buffer import Replay, ReplayBuffer, check_capacity
from dqn_runner.replay.n_step import NStepAccumulator
from dqn_runner.replay.ring_buffer import RingBuffer
from dqn_runner.replay.storage import Saved, make_storage
from dqn_runner.replay.sum_tree import SumTree


class PrioritizedSampler:
    """A row's probability is proportional to (|delta| + eps)**alpha (Schaul et al. 2016, section 3.3).

    New rows have the largest priority seen so far, 1 at first, so that each is drawn soon (Algorithm 1).
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
        """UpdateNoise from `ring` by `rng`; see `PrioritizedReplay` for the rest."""
        self._ring = ring
        self._rng = rng
        self._alpha = alpha
        self._beta = beta
        self._beta_steps = beta_steps
        self._eps = eps
        self._largest = 1.0
        self._tree = SumTree(ring.capacity)
        """A value for each slot: the priority**alpha of its row, 0 without one."""
        self._start = 0
        self._stop = 0
        """The tree knows of the rows [start, stop)."""

    def sample(self, batch_size: int, step: int) -> tuple[IntArray, torch.Tensor]:
        """One slot from each of `batch_size` ranges of equal probability (appendix B.2.1).

        The importance weight (N P(i))**-beta over the largest of the batch is (p_i / p_min)**-beta.
        """
        self._follow()
        fractions = (np.arange(batch_size) + self._rng.random(batch_size)) / batch_size
        slots = self._tree.find(fractions)
        values = self._tree.values[slots]
        weight = (values / values.min()) ** -self._beta_at(step) / batch_size
        return slots, torch.from_numpy(weight.astype(np.float32))

    def update(self, slots: IntArray, priority: torch.Tensor) -> None:
        """Give the rows in `slots` new priorities |delta|; where a slot is repeated, the last one counts.

        A slot whose row was given up since it was drawn is left out. Raises a DivergedError for priorities
        that are no finite numbers.
        """
        values = (np.abs(priority.numpy().astype(np.float64)) + self._eps) ** self._alpha
        largest = values.max()
        if not np.isfinite(largest):
            raise DivergedError("priorities of the replay are infinite or undefined")
        self._follow()
        alive = self._tree.values[slots] > 0.0
        self._tree.set(slots[alive], values[alive])
        self._largest = max(self._largest, float(largest))

    def state_dict(self) -> State:
        """The priorities of the ring's rows, oldest first, the largest of all times, and the generator."""
        self._follow()
        pieces = [self._tree.values[piece] for piece in self._ring.slots(self._start, self._stop)]
        return {
            "priorities": np.concatenate([np.empty(0), *pieces]),
            "largest_priority": self._largest,
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from `state`; the sums follow from the priorities."""
        ring, priorities = self._ring, np.asarray(state["priorities"])
        self._tree = SumTree(ring.capacity)
        self._start, self._stop = ring.start, ring.stop
        for piece in ring.slots(ring.start, ring.stop):
            count = piece.stop - piece.start
            self._tree.fill(piece, priorities[:count])
            priorities = priorities[count:]
        self._largest = state["largest_priority"]
        self._rng.bit_generator.state = state["rng"]

    def _beta_at(self, step: int) -> float:
        return self._beta + (1.0 - self._beta) * min(1.0, step / self._beta_steps)

    def _follow(self) -> None:
        """Take over which rows the ring gave up and got, before priorities are read or changed."""
        ring, tree = self._ring, self._tree
        for piece in ring.slots(max(self._start, ring.stop - ring.capacity), ring.start):
            tree.fill(piece, 0.0)
        for piece in ring.slots(max(self._stop, ring.start), ring.stop):
            tree.fill(piece, self._largest)
        self._start, self._stop = ring.start, ring.stop


@option("agent/replay", "prioritized")
@dataclass(kw_only=True)
class PrioritizedReplay:
    """Transitions are as likely as their TD errors are large (Schaul et al. 2016, proportional)."""

    capacity: int = 50_000
    """Transitions kept; the oldest makes room."""
    alpha: float = 0.6
    """How much priorities count: a transition's probability is proportional to (|delta| + eps)**alpha."""
    beta: float = 0.4
    """How much importance weights (N P)**-beta make up for it at the start; they grow to beta = 1."""
    beta_steps: int = 100_000
    """Env steps until beta is 1; the length of the run, as a rule."""
    eps: float = 1e-6
    """Keeps transitions without any TD error alive."""

    def __post_init__(self) -> None:
        """Refuse an empty memory, and priorities that could be 0 or undefined."""
        check_capacity(self.capacity)
        for name in ("alpha", "beta"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise UserError(f"agent.replay.{name} must be between 0 and 1, got {value}")
        if self.beta_steps < 1:
            raise UserError(f"agent.replay.beta_steps must be at least 1, got {self.beta_steps}")
        if not 0 < self.eps < float("inf"):
            raise UserError(f"agent.replay.eps must be a number above 0, got {self.eps}")

    def num_bytes(self, spec: EnvSpec) -> int:
        """Memory that a full replay takes."""
        return storage.num_bytes(self.capacity, spec) + sum_tree.num_bytes(self.capacity)

    def saved(self, spec: EnvSpec) -> Saved:
        """What a full replay takes on the disk; priorities change everywhere."""
        shared, own = storage.saved(self.capacity, spec)
        return Saved(shared, own + self.capacity * np.dtype(np.float64).itemsize)

    def build(
        self, spec: EnvSpec, num_envs: int, gamma: float, n_step: int, rng: np.random.Generator
    ) -> Replay:
        """An empty replay for transitions of `spec`."""
        stored = make_storage(self.capacity, spec, num_envs, n_step)
        drawn = PrioritizedSampler(stored.ring, rng, self.alpha, self.beta, self.beta_steps, self.eps)
        return ReplayBuffer(stored, NStepAccumulator(num_envs, gamma, n_step), drawn)
