"""An environment worker: steps one environment, resets it when an episode ends, and replays episodes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from zlib import crc32

import numpy as np

from dqn_runner.core.types import Array, BoolArray, EnvSpec
from dqn_runner.envs.base import Env
from dqn_runner.envs.checked_env import CheckedEnv, CheckedStep
from dqn_runner.envs.episode_metrics import NO_METRICS, EpisodeMetrics
from dqn_runner.envs.episode_record import Replayed, checked_part
from dqn_runner.envs.generators import EpisodeGenerators, Used


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
    """Whether learning treats the step as terminal although the episode continues (Mnih et al. 2015)."""
    used: Used
    """After the end of an episode, the global generators that the environment is known to use."""
    next_mask: BoolArray | None = None
    """[actions]: the action mask of `next_obs`; None without masks."""
    first_mask: BoolArray | None = None
    """[actions]: the action mask of `first_obs`, if there is one."""
    metrics: EpisodeMetrics = NO_METRICS
    """What the environment reported in an episode that ended in this step."""


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

    @property
    def is_alone(self) -> bool:
        """Whether no other worker runs its environment in the same process."""
        ...

    def replay_episode(
        self, seed: int, actions: Sequence[int], used: Used, attributes: Mapping[str, Any]
    ) -> Callable[[], Replayed]:
        """Set `attributes`, reset with `seed` and repeat `actions`, until the episode ends.

        `used` are the global generators that the environment was known to use when the episode began.
        """
        ...

    def step(self, action: int, next_seed: int, last: bool) -> Callable[[], EnvStep]:
        """Take one step, and reset with `next_seed` if it ends the episode; `last` truncates the episode."""
        ...

    def set_attributes(self, attributes: Mapping[str, Any]) -> Callable[[], None]:
        """Set these attributes of the environment before each later reset, and no others any more.

        Raises UserError if it has no such attribute.
        """
        ...

    def close(self) -> None:
        """Close the environment."""
        ...


class LocalWorker:
    """Runs an environment in this process; the work is done when the result is waited for."""

    is_alone = False

    def __init__(self, env: Env, seed: int, info_metrics: Sequence[str] = ()) -> None:
        """Use `env`; raises UserError if DQN cannot handle its spaces.

        `seed` determines the state of global generators that the environment is not known to use; it must be
        the same for all workers of a process. `info_metrics` are keys of `info` that are metrics.
        """
        self.env = CheckedEnv(env, info_metrics)
        self.spec, self.name = self.env.spec, self.env.name
        self._generators = EpisodeGenerators(seed)
        self._attributes: Mapping[str, Any] = {}

    def replay_episode(
        self, seed: int, actions: Sequence[int], used: Used, attributes: Mapping[str, Any]
    ) -> Callable[[], Replayed]:
        """Set `attributes`, reset with `seed` and repeat `actions`, until the episode ends."""
        return functools.partial(self._replay_episode, seed, actions, used, attributes)

    def step(self, action: int, next_seed: int, last: bool) -> Callable[[], EnvStep]:
        """Take one step, and reset with `next_seed` if it ends the episode; `last` truncates the episode."""
        return functools.partial(self._step, action, next_seed, last)

    def set_attributes(self, attributes: Mapping[str, Any]) -> Callable[[], None]:
        """Set these attributes of the environment before each later reset, and no others any more."""
        return functools.partial(self._set_attributes, attributes)

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _set_attributes(self, attributes: Mapping[str, Any]) -> None:
        self.env.attributes.check(attributes)
        self._attributes = attributes

    def _replay_episode(
        self, seed: int, actions: Sequence[int], used: Used, attributes: Mapping[str, Any]
    ) -> Replayed:
        self.env.attributes.set(attributes)
        self._generators.restart(seed, used)
        row = np.empty(self.spec.obs_shape, self.spec.obs_dtype)
        part = checked_part(self.spec, row)
        row[...] = self._reset(seed)
        rewards: list[float] = []
        checksums = [self._with_mask(crc32(part))]
        ended = False
        for action in actions:
            obs, reward, terminated, truncated, life_lost = self._step_env(action)
            row[...] = obs
            rewards.append(reward)
            checksums.append(self._with_mask(crc32(part, life_lost)))
            ended = terminated or truncated
            if ended:
                break
        return Replayed(row, self.env.mask, rewards, checksums, ended, self._generators.moved())

    def _step(self, action: int, next_seed: int, last: bool) -> EnvStep:
        stepped = self._step_env(action) if self._generators.active else self.env.step(action)
        next_obs, reward, terminated, truncated, life_lost = stepped
        truncated = truncated or last
        next_mask = self.env.mask
        if not (terminated or truncated):
            return EnvStep(next_obs, None, reward, False, False, life_lost, None, next_mask)
        next_obs = np.array(next_obs)  # a copy: the environment may reuse its buffer in the reset
        used = self._generators.end_episode()
        metrics = self.env.metrics.end_episode()
        self._generators.begin_episode(next_seed, used)
        self.env.attributes.set(self._attributes)
        first_obs = self._reset(next_seed)
        ended = (reward, terminated, truncated, life_lost, used)
        return EnvStep(next_obs, first_obs, *ended, next_mask, self.env.mask, metrics)

    def _with_mask(self, checksum: int) -> int:
        return checksum if self.env.mask is None else crc32(self.env.mask.data, checksum)

    def _step_env(self, action: int) -> CheckedStep:
        with self._generators:
            return self.env.step(action)

    def _reset(self, seed: int) -> Array:
        with self._generators:
            return self.env.reset(seed)
