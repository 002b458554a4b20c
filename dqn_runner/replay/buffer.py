"""The replay buffer: stores transitions and draws batches of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import State
from dqn_runner.core.types import Array, Batch, EnvSpec, IntArray, Transition
from dqn_runner.replay.n_step import NStepAccumulator
from dqn_runner.replay.ring_buffer import RingBuffer
from dqn_runner.replay.samplers import Sampler
from dqn_runner.replay.storage import DiskUsage, Storage, make_storage


class Replay(Protocol):
    """Stores the steps of the collector and draws batches for the agent."""

    def add(
        self,
        env: int,
        obs: Array,
        action: int,
        reward: float,
        terminated: bool,
        truncated: bool,
        next_obs: Array,
        *masks: Array,
    ) -> None:
        """Store one step of environment number `env`; arrays are copied.

        `masks` are the action masks [actions] of `obs` and `next_obs`, if the environment has any.
        """
        ...

    def sample(self, batch_size: int, step: int) -> Batch:
        """Draw a batch with replacement, at env step `step` of the run."""
        ...

    def update(self, indices: IntArray, priority: torch.Tensor) -> None:
        """Set the priorities [batch] of the last batch, drawn at `indices`, before the next step is added."""
        ...

    def truncate(self, env: int, next_obs: Array, *next_mask: Array) -> None:
        """Truncate the episode of environment `env`: its unfinished n-step windows end at `next_obs`."""
        ...

    def __len__(self) -> int:
        """Number of transitions that can be drawn."""
        ...

    def state_dict(self) -> State:
        """Transitions, unfinished n-step windows, priorities and the random generator."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Restore the replay; raises a UserError if the state was saved with other settings."""
        ...


class ReplayConfig(Protocol):
    """An option of the config group `agent/replay`."""

    capacity: int
    """Maximum number of transitions."""
    preload: str | None
    """The recording that fills the replay before the first step; None for an empty one."""
    demonstrations: float
    """The share of each batch that is reserved for the recording; 0 makes its transitions ordinary ones."""

    def num_bytes(self, spec: EnvSpec) -> int:
        """Memory of a full replay in bytes."""
        ...

    def disk_usage(self, spec: EnvSpec) -> DiskUsage:
        """Size of a full replay in checkpoints."""
        ...

    def build(
        self,
        spec: EnvSpec,
        num_envs: int,
        gamma: float,
        n_step: int,
        rng: np.random.Generator,
        num_frames: int | None = None,
    ) -> Replay:
        """Create an empty replay for transitions of `spec`, which draws with `rng`.

        `num_frames` is as in `make_storage`: for demonstrations, whose number is known.
        """
        ...


class ReplayBuffer:
    """A replay of three parts: n-step windows, a storage of transitions, and a sampler."""

    def __init__(self, storage: Storage, n_step: NStepAccumulator, sampler: Sampler) -> None:
        """`sampler` must draw from the ring buffer of `storage`."""
        self._storage = storage
        self._n_step = n_step
        self._sampler = sampler

    def __len__(self) -> int:
        """Number of transitions that can be drawn."""
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
        *masks: Array,
    ) -> None:
        """Store one step of environment number `env`; arrays are copied."""
        storage = self._storage
        obs, next_obs = storage.encode(env, obs), storage.encode(env, next_obs)
        finished = self._n_step.add(env, obs, action, reward, terminated, truncated, next_obs, *masks)
        for transition in finished:
            storage.append(transition)

    def sample(self, batch_size: int, step: int) -> Batch:
        """Draw a batch with replacement; its indices are slots of the ring buffer."""
        slots, weight = self._sampler.sample(batch_size, step)
        columns = {name: torch.from_numpy(column) for name, column in self._storage.take(slots).items()}
        return Batch(Transition(**columns), slots, weight)

    def update(self, indices: IntArray, priority: torch.Tensor) -> None:
        """Set the priorities [batch] of the last batch, drawn at `indices`, before the next step is added."""
        self._sampler.update(indices, priority)

    def truncate(self, env: int, next_obs: Array, *next_mask: Array) -> None:
        """Truncate the episode of environment `env`: its unfinished n-step windows end at `next_obs`."""
        for transition in self._n_step.truncate(env, self._storage.encode(env, next_obs), *next_mask):
            self._storage.append(transition)

    def state_dict(self) -> State:
        """Transitions, unfinished n-step windows, priorities and the random generator."""
        return {
            "capacity": self._storage.ring.capacity,
            **self._storage.state_dict(),
            "n_step": self._n_step.state_dict(),
            **self._sampler.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore the replay; raises a UserError if the state was saved with other settings."""
        capacity = self._storage.ring.capacity
        if state["capacity"] != capacity:
            raise UserError(
                f"the checkpoint's replay has a capacity of {state['capacity']} transitions, this run's "
                f"{capacity}; agent.replay must not change"
            )
        self._n_step.load_state_dict(state["n_step"])
        self._storage.load_state_dict(state)
        self._sampler.load_state_dict(state)


def build_replay(
    capacity: int,
    spec: EnvSpec,
    num_envs: int,
    gamma: float,
    n_step: int,
    make_sampler: Callable[[RingBuffer], Sampler],
    num_frames: int | None = None,
) -> ReplayBuffer:
    """Create an empty replay whose sampler draws from the ring buffer passed to `make_sampler`."""
    storage = make_storage(capacity, spec, num_envs, n_step, num_frames)
    return ReplayBuffer(storage, NStepAccumulator(num_envs, gamma, n_step), make_sampler(storage.ring))
