"""Replay: remembers transitions and draws batches, by a sampler over where they are stored."""

from __future__ import annotations

from typing import Protocol

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import State
from dqn_runner.core.types import Array, Batch, IntArray, Transition
from dqn_runner.replay.n_step import NStepAccumulator
from dqn_runner.replay.samplers import Sampler
from dqn_runner.replay.storage import Storage


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


def check_capacity(capacity: int) -> None:
    if capacity < 1:
        raise UserError(f"agent.replay.capacity must be at least 1, got {capacity}")


class ReplayBuffer:
    """A ring of transitions, the windows that become such, and a sampler to draw from."""

    def __init__(self, storage: Storage, windows: NStepAccumulator, sampler: Sampler) -> None:
        """`sampler` draws from the ring of `storage`."""
        self._storage = storage
        self._windows = windows
        self._distribution = sampler

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
        for window in self._windows.add(env, obs, action, reward, terminated, truncated, next_obs):
            stored.append(window)

    def sample(self, batch_size: int, step: int) -> Batch:
        """A batch drawn with replacement; its indices are slots of the ring."""
        slots, weight = self._distribution.sample(batch_size, step)
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
