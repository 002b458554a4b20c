"""Distributions over the transitions of a replay: which ones are drawn, and what they weigh."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from dqn_runner.lazy import torch
from dqn_runner.ring import Ring
from dqn_runner.sum_tree import SumTree
from dqn_runner.types import DivergedError, IntArray, State


class Distribution(Protocol):
    """Draws slots of a ring."""

    def draw(self, batch_size: int, step: int) -> tuple[IntArray, torch.Tensor]:
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


class Uniform:
    """Every row is equally likely and weighs the same."""

    def __init__(self, ring: Ring, rng: np.random.Generator) -> None:
        """Draws from `ring` by `rng`."""
        self._ring = ring
        self._rng = rng
        self._weight = torch.ones(0)

    def draw(self, batch_size: int, step: int) -> tuple[IntArray, torch.Tensor]:
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


class Proportional:
    """A row's probability is proportional to (|delta| + eps)**alpha (Schaul et al. 2016, section 3.3).

    New rows have the largest priority seen so far, 1 at first, so that each is drawn soon (Algorithm 1).
    """

    def __init__(
        self, ring: Ring, rng: np.random.Generator, alpha: float, beta: float, beta_steps: int, eps: float
    ) -> None:
        """Draws from `ring` by `rng`; see `PrioritizedReplay` for the rest."""
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

    def draw(self, batch_size: int, step: int) -> tuple[IntArray, torch.Tensor]:
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
