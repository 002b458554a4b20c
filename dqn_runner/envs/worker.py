"""An environment worker: steps one environment, resets it when an episode ends, and replays episodes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import Array, EnvSpec
from dqn_runner.envs.base import Env, env_name, spec_of


class EnvStep(NamedTuple):
    """The result of one step of one environment."""

    next_obs: Array
    """[*obs_shape]: the successor observation, before any reset."""
    first_obs: Array | None
    """[*obs_shape]: the first observation of the next episode if this step ended the episode, else None."""
    reward: float
    terminated: bool
    truncated: bool
    life_lost: bool


class EnvWorker(Protocol):
    """Runs one environment.

    A request returns a function that waits for its result, so that several workers can run at once.
    """

    @property
    def spec(self) -> EnvSpec:
        """The shapes of the environment."""
        ...

    @property
    def name(self) -> str:
        """The name of the environment in messages."""
        ...

    def replay_episode(self, seed: int, actions: Sequence[int]) -> Callable[[], Array]:
        """Reset with `seed` and repeat `actions`; the result is the observation after them, [*obs_shape]."""
        ...

    def step(self, action: int, next_seed: int, last: bool) -> Callable[[], EnvStep]:
        """Take one step, and reset with `next_seed` if it ends the episode; `last` truncates the episode."""
        ...

    def close(self) -> None:
        """Close the environment."""
        ...


class LocalWorker:
    """Runs an environment in this process; the work is done when the result is waited for."""

    def __init__(self, env: Env) -> None:
        """Use `env`; raises UserError if DQN cannot handle its spaces."""
        self.env = env
        self.spec = spec_of(env)
        self.name = env_name(env)

    def replay_episode(self, seed: int, actions: Sequence[int]) -> Callable[[], Array]:
        """Reset with `seed` and repeat `actions`; the result is the observation after them, [*obs_shape]."""
        return functools.partial(self._replay_episode, seed, actions)

    def step(self, action: int, next_seed: int, last: bool) -> Callable[[], EnvStep]:
        """Take one step, and reset with `next_seed` if it ends the episode; `last` truncates the episode."""
        return functools.partial(self._step, action, next_seed, last)

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _replay_episode(self, seed: int, actions: Sequence[int]) -> Array:
        obs = self._reset(seed)
        for action in actions:
            obs = self.env.step(action)[0]
        return obs

    def _step(self, action: int, next_seed: int, last: bool) -> EnvStep:
        next_obs, reward, terminated, truncated, info = self.env.step(action)
        truncated = bool(truncated) or last
        first_obs = None
        if terminated or truncated:
            next_obs = np.array(next_obs)  # a copy: the environment may reuse its buffer in the reset
            first_obs = self._reset(next_seed)
        life_lost = bool(info.get("life_lost"))
        return EnvStep(next_obs, first_obs, float(reward), bool(terminated), truncated, life_lost)

    def _reset(self, seed: int) -> Array:
        obs, _ = self.env.reset(seed=seed)
        if np.shape(obs) != self.spec.obs_shape:
            raise UserError(
                f"{self.name} returned an observation of shape {np.shape(obs)}, but its "
                f"observation_space has shape {self.spec.obs_shape}"
            )
        return obs
