"""Runs one environment: resets within the step, true successors, episodes that are played again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import Array, EnvSpec
from dqn_runner.envs.base import Env, env_name, spec_of


class EnvStep(NamedTuple):
    """One step of one environment."""

    next_obs: Array
    """[*obs_shape]: the true successor."""
    first_obs: Array | None
    """[*obs_shape]: the first observation of the next episode, if this one is over."""
    reward: float
    terminated: bool
    truncated: bool
    life_lost: bool


class EnvWorker(Protocol):
    """Runs one environment. Requests begin at once; the functions they return wait for the result."""

    @property
    def spec(self) -> EnvSpec:
        """The shapes of the environment."""
        ...

    @property
    def name(self) -> str:
        """What to call the environment in messages."""
        ...

    def play(self, seed: int, actions: Sequence[int]) -> Callable[[], Array]:
        """Reset with `seed` and repeat `actions`; gives the observation after them."""
        ...

    def step(self, action: int, next_seed: int, last: bool) -> Callable[[], EnvStep]:
        """One step, truncated if it is the `last`; where the episode is over, a reset with `next_seed`."""
        ...

    def close(self) -> None:
        """End the environment."""
        ...


class LocalWorker:
    """Runs an environment in this process, when the result is asked for."""

    def __init__(self, env: Env) -> None:
        """Take over the environment."""
        self.env = env
        self.spec = spec_of(env)
        self.name = env_name(env)

    def play(self, seed: int, actions: Sequence[int]) -> Callable[[], Array]:
        """Reset with `seed` and repeat `actions`; gives the observation after them."""
        return functools.partial(self._play, seed, actions)

    def step(self, action: int, next_seed: int, last: bool) -> Callable[[], EnvStep]:
        """One step, truncated if it is the `last`; where the episode is over, a reset with `next_seed`."""
        return functools.partial(self._step, action, next_seed, last)

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _play(self, seed: int, actions: Sequence[int]) -> Array:
        obs = self._reset(seed)
        for action in actions:
            obs = self.env.step(action)[0]
        return obs

    def _step(self, action: int, next_seed: int, last: bool) -> EnvStep:
        next_obs, reward, terminated, truncated, info = self.env.step(action)
        truncated = bool(truncated) or last
        first_obs = None
        if terminated or truncated:
            next_obs = np.array(next_obs)  # it may be a buffer that the environment writes over
            first_obs = self._reset(next_seed)
        life_lost = bool(info.get("life_lost"))
        return EnvStep(next_obs, first_obs, float(reward), bool(terminated), truncated, life_lost)

    def _reset(self, seed: int) -> Array:
        obs, _ = self.env.reset(seed=seed)
        if np.shape(obs) != self.spec.obs_shape:
            raise UserError(
                f"{self.name} returned an observation of shape {np.shape(obs)}, but its "
                f"observation_space says {self.spec.obs_shape}"
            )
        return obs
