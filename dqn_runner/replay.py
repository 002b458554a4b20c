"""Replay: remembers transitions, builds n-step windows, draws batches."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, Protocol

import numpy as np

from dqn_runner.lazy import torch
from dqn_runner.registry import option
from dqn_runner.types import Array, Batch, EnvSpec, IntArray, Rows, State, Transition, UserError

_CHUNK_BYTES = 2**24
"""Rows of a checkpoint are taken over in pieces of this size, so that memory does not hold them twice."""


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

    def update(self, index: IntArray, priority: torch.Tensor) -> None:
        """Take over the new priorities of a batch."""
        ...

    def truncate(self, env: int, next_obs: Array) -> None:
        """Close the open windows of environment `env`, whose episode is cut short at `next_obs`."""
        ...

    def __len__(self) -> int:
        """How many transitions can be drawn."""
        ...

    def state_dict(self) -> State:
        """Transitions, open windows and the generator."""
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
        if self.capacity < 1:
            raise UserError(f"agent.replay.capacity must be at least 1, got {self.capacity}")

    def num_bytes(self, spec: EnvSpec) -> int:
        """Memory that a full replay takes."""
        obs = prod(spec.obs_shape) * np.dtype(spec.obs_dtype).itemsize
        return self.capacity * (2 * obs + 8 + 4 + 4)

    def build(
        self, spec: EnvSpec, num_envs: int, gamma: float, n_step: int, rng: np.random.Generator
    ) -> Replay:
        """An empty replay for transitions of `spec`."""
        return RingReplay(self.capacity, spec, NStepWindows(num_envs, gamma, n_step), rng)


class Window(NamedTuple):
    """A finished n-step window."""

    obs: Array
    action: int
    reward: float
    discount: float
    next_obs: Array


class NStepWindows:
    """Turns steps into n-step transitions, one open window per environment.

    At the end of an episode, by termination or truncation, the shorter windows that remain are finished
    too, each with the discount of its own length; nothing reaches across an episode's edge.
    """

    def __init__(self, num_envs: int, gamma: float, n_step: int) -> None:
        """No window is open yet."""
        self.gamma = gamma
        self.n_step = n_step
        self._open: list[deque[tuple[Array, int, float]]] = [deque() for _ in range(num_envs)]

    def push(
        self,
        env: int,
        obs: Array,
        action: int,
        reward: float,
        terminated: bool,
        truncated: bool,
        next_obs: Array,
    ) -> list[Window]:
        """The windows that this step finishes, oldest first."""
        if self.n_step == 1:
            return [Window(obs, action, reward, 0.0 if terminated else self.gamma, next_obs)]
        window = self._open[env]
        window.append((obs.copy(), action, reward))
        finished: list[Window] = []
        while len(window) == self.n_step or ((terminated or truncated) and window):
            finished.append(self._finish(window, terminated, next_obs))
        return finished

    def truncate(self, env: int, next_obs: Array) -> list[Window]:
        """The windows that end because the episode of `env` is cut short at `next_obs`."""
        window = self._open[env]
        return [self._finish(window, False, next_obs) for _ in range(len(window))]

    def _finish(self, window: deque[tuple[Array, int, float]], terminated: bool, next_obs: Array) -> Window:
        total = sum(self.gamma**i * r for i, (_, _, r) in enumerate(window))
        discount = 0.0 if terminated else self.gamma ** len(window)
        obs, action, _ = window.popleft()
        return Window(obs, action, total, discount, next_obs)

    def state_dict(self) -> State:
        """The open windows, and what they are made by."""
        return {
            "gamma": self.gamma,
            "n_step": self.n_step,
            "open": [[list(step) for step in window] for window in self._open],
        }

    def load_state_dict(self, state: State) -> None:
        """Reopen the windows."""
        for name in ("gamma", "n_step"):
            if state[name] != getattr(self, name):
                raise UserError(
                    f"the checkpoint's transitions were made with agent.{name}={state[name]}, "
                    f"not {getattr(self, name)}"
                )
        if len(state["open"]) != len(self._open):
            raise UserError(
                f"the checkpoint was written with {len(state['open'])} environments, not {len(self._open)}"
            )
        self._open = [
            deque((np.asarray(obs), action, reward) for obs, action, reward in window)
            for window in state["open"]
        ]


class RingReplay:
    """A ring of transitions in preallocated numpy arrays; the operating system gives memory as it fills."""

    def __init__(self, capacity: int, spec: EnvSpec, windows: NStepWindows, rng: np.random.Generator) -> None:
        """An empty ring."""
        self.capacity = capacity
        self._windows = windows
        self._rng = rng
        self._added = 0
        shape = (capacity, *spec.obs_shape)
        self._columns: dict[str, Array] = {
            "obs": np.empty(shape, spec.obs_dtype),
            "action": np.empty(capacity, np.int64),
            "reward": np.empty(capacity, np.float32),
            "discount": np.empty(capacity, np.float32),
            "next_obs": np.empty(shape, spec.obs_dtype),
        }
        self._weight = torch.ones(0)

    def __len__(self) -> int:
        """How many transitions can be drawn."""
        return min(self._added, self.capacity)

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
        for window in self._windows.push(env, obs, action, reward, terminated, truncated, next_obs):
            self._append(window)

    def sample(self, batch_size: int, step: int) -> Batch:
        """A batch drawn uniformly with replacement; all weigh the same."""
        index = self._rng.integers(len(self), size=batch_size)
        drawn = {name: torch.from_numpy(column.take(index, axis=0)) for name, column in self._columns.items()}
        if len(self._weight) != batch_size:
            self._weight = torch.full((batch_size,), 1 / batch_size)
        return Batch(Transition(**drawn), index, self._weight)

    def update(self, index: IntArray, priority: torch.Tensor) -> None:
        """Uniform sampling keeps no priorities."""

    def truncate(self, env: int, next_obs: Array) -> None:
        """Close the open windows of environment `env`, whose episode is cut short at `next_obs`."""
        for window in self._windows.truncate(env, next_obs):
            self._append(window)

    def state_dict(self) -> State:
        """Transitions, open windows and the generator."""
        row_bytes = sum(column[:1].nbytes for column in self._columns.values())
        rows = Rows(self._added - len(self), self._added, row_bytes, self._read)
        windows, generator = self._windows.state_dict(), self._rng.bit_generator.state
        return {"rows": rows, "windows": windows, "rng": generator}

    def load_state_dict(self, state: State) -> None:
        """Go on from `state`."""
        rows: Rows = state["rows"]
        if rows.stop - rows.start != min(rows.stop, self.capacity):
            raise UserError(
                f"the checkpoint's replay holds {rows.stop - rows.start} of {rows.stop} transitions, "
                f"this run keeps {self.capacity}; agent.replay must stay as it was"
            )
        chunk = max(1, _CHUNK_BYTES // rows.row_bytes)
        for start in range(rows.start, rows.stop, chunk):
            stop = min(start + chunk, rows.stop)
            index = np.arange(start, stop) % self.capacity
            for name, values in rows.read(start, stop).items():
                column = self._columns[name]
                if values.shape[1:] != column.shape[1:] or values.dtype != column.dtype:
                    raise UserError(
                        f"the checkpoint's replay does not fit: {name} is {values.shape[1:]} {values.dtype}, "
                        f"this run keeps {column.shape[1:]} {column.dtype}; env must stay as it was"
                    )
                column[index] = values
        self._added = rows.stop
        self._windows.load_state_dict(state["windows"])
        self._rng.bit_generator.state = state["rng"]

    def _append(self, window: Window) -> None:
        row, columns = self._added % self.capacity, self._columns
        columns["obs"][row] = window.obs
        columns["action"][row] = window.action
        columns["reward"][row] = window.reward
        columns["discount"][row] = window.discount
        columns["next_obs"][row] = window.next_obs
        self._added += 1

    def _read(self, start: int, stop: int) -> dict[str, Array]:
        """Copies of the rows [start, stop), which may lie around the end of the ring."""
        first, count = start % self.capacity, stop - start
        last = min(first + count, self.capacity)
        rest = count - (last - first)
        return {name: np.concatenate([c[first:last], c[:rest]]) for name, c in self._columns.items()}
