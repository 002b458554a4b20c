"""Replay: remembers transitions and draws batches, by a distribution over where they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dqn_runner import storage, sum_tree
from dqn_runner.distributions import Distribution, Proportional, Uniform
from dqn_runner.lazy import torch
from dqn_runner.n_step import NStepWindows
from dqn_runner.registry import option
from dqn_runner.storage import Saved, Storage, make_storage
from dqn_runner.types import Array, Batch, EnvSpec, IntArray, State, Transition, UserError


class Replay(Protocol):
    """Where the collector puts experience and the agent's batches come from."""

    def add(
        self,
        env: int,
        obs: Array,
        action: int,
        reward: float,
        terminated: bool,
        truncated: bool,
        next_obs: Array,
    ) -> None:
        """One step of environment `env`; arrays are copied."""
        ...

    def sample(self, batch_size: int, step: int) -> Batch:
        """A batch drawn with replacement, at env step `step` of the run."""
        ...

    def update(self, indices: IntArray, priority: torch.Tensor) -> None:
        """Take over the priorities of the batch that was drawn at `indices`, before anything is added."""
        ...

    def truncate(self, env: int, next_obs: Array) -> None:
        """Close the open windows of environment `env`, whose episode is cut short at `next_obs`."""
        ...

    def __len__(self) -> int:
        """How many transitions can be drawn."""
        ...

    def state_dict(self) -> State:
        """Transitions, open windows, priorities and the generator."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Go on from `state`."""
        ...


@option("agent/replay", "uniform")
@dataclass(kw_only=True)
class UniformReplay:
    """Every remembered transition is equally likely (Lin 1992; Mnih et al. 2015)."""

    capacity: int = 50_000
    """Transitions kept; the oldest makes room."""

    def __post_init__(self) -> None:
        """Refuse an empty memory."""
        _check_capacity(self.capacity)

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
        return RingReplay(stored, NStepWindows(num_envs, gamma, n_step), Uniform(stored.ring, rng))


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
        _check_capacity(self.capacity)
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
        drawn = Proportional(stored.ring, rng, self.alpha, self.beta, self.beta_steps, self.eps)
        return RingReplay(stored, NStepWindows(num_envs, gamma, n_step), drawn)


def _check_capacity(capacity: int) -> None:
    if capacity < 1:
        raise UserError(f"agent.replay.capacity must be at least 1, got {capacity}")


class RingReplay:
    """A ring of transitions, the windows that become such, and a distribution to draw from."""

    def __init__(self, storage: Storage, windows: NStepWindows, distribution: Distribution) -> None:
        """`distribution` draws from the ring of `storage`."""
        self._storage = storage
        self._windows = windows
        self._distribution = distribution

    def __len__(self) -> int:
        """How many transitions can be drawn."""
        return len(self._storage.ring)

    def add(
        self,
        env: int,
        obs: Array,
        action: int,
        reward: float,
        terminated: bool,
        truncated: bool,
        next_obs: Array,
    ) -> None:
        """One step of environment `env`; arrays are copied."""
        stored = self._storage
        obs, next_obs = stored.encode(env, obs), stored.encode(env, next_obs)
        for window in self._windows.push(env, obs, action, reward, terminated, truncated, next_obs):
            stored.append(window)

    def sample(self, batch_size: int, step: int) -> Batch:
        """A batch drawn with replacement; its indices are slots of the ring."""
        slots, weight = self._distribution.draw(batch_size, step)
        drawn = {name: torch.from_numpy(column) for name, column in self._storage.take(slots).items()}
        return Batch(Transition(**drawn), slots, weight)

    def update(self, indices: IntArray, priority: torch.Tensor) -> None:
        """Take over the priorities of the batch that was drawn at `indices`, before anything is added."""
        self._distribution.update(indices, priority)

    def truncate(self, env: int, next_obs: Array) -> None:
        """Close the open windows of environment `env`, whose episode is cut short at `next_obs`."""
        for window in self._windows.truncate(env, self._storage.encode(env, next_obs)):
            self._storage.append(window)

    def state_dict(self) -> State:
        """Transitions, open windows, priorities and the generator."""
        return {
            "capacity": self._storage.ring.capacity,
            **self._storage.state_dict(),
            "windows": self._windows.state_dict(),
            **self._distribution.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from `state`."""
        capacity = self._storage.ring.capacity
        if state["capacity"] != capacity:
            raise UserError(
                f"the checkpoint's replay keeps {state['capacity']} transitions, this run {capacity}; "
                "agent.replay must stay as it was"
            )
        self._windows.load_state_dict(state["windows"])
        self._storage.load_state_dict(state)
        self._distribution.load_state_dict(state)
