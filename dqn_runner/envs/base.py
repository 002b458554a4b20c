"""Environments: parts that make them, and their shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, cast

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import gymnasium
from dqn_runner.core.types import EnvSpec

Env = Any
"""A `gymnasium.Env`; its generic parameters say nothing here."""


class EnvPart(Protocol):
    """A kind of environment."""

    num_envs: int
    normalize_observations: bool

    def make(self, training: bool = True, render: bool = False) -> Env:
        """A new `gymnasium.Env` with Box observations and Discrete actions.

        What helps learning but is not the task (lost lives that count as ends) is left out unless `training`.
        """
        ...

    def learning_reward(self, reward: float) -> float:
        """What the agent learns from where the environment gives `reward`."""
        ...


Vectorization = Enum("Vectorization", {"sync": "sync", "async": "async"})
"""Whether several environments are stepped in turn, or at once in processes of their own."""


@dataclass(kw_only=True)
class EnvConfig:
    """What can be said of every kind of environment."""

    num_envs: int = 1
    """Copies that are stepped together."""
    vectorization: Vectorization = Vectorization["sync"]
    """`sync` steps the copies in turn; `async` at once, each in a process of its own, for slow ones."""
    reward_threshold: float | None = None
    """The return at which the task counts as solved; `trainer.target_return` follows it."""
    reward_scale: float = 1.0
    """Learning sees rewards times this; returns stay as they are."""
    reward_clip: float | None = None
    """Learning sees scaled rewards between minus and plus this; returns stay as they are."""
    normalize_observations: bool = False
    """Networks see observations less their mean, divided by their standard deviation so far."""

    def __post_init__(self) -> None:
        """Refuse numbers that no environment could use."""
        if self.num_envs < 1:
            raise UserError(f"env.num_envs must be at least 1, got {self.num_envs}")
        for name in ("reward_scale", "reward_clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"env.{name} must be a positive number, got {value}")

    def learning_reward(self, reward: float) -> float:
        """The reward scaled, then clipped to [-reward_clip, reward_clip]."""
        scaled, clip = reward * self.reward_scale, self.reward_clip
        return scaled if clip is None else min(max(scaled, -clip), clip)


def spec_of(env: Env) -> EnvSpec:
    """The shapes of an environment; raises for spaces that DQN cannot handle."""
    obs: Any = env.observation_space
    action: Any = env.action_space
    if not isinstance(action, gymnasium.spaces.Discrete):
        raise UserError(f"DQN needs a Discrete action space; {env_name(env)} has {action}")
    discrete = cast("Any", action)
    if discrete.start != 0:
        raise UserError(
            f"{env_name(env)}'s actions start at {discrete.start}; wrap it so that they start at 0"
        )
    if not isinstance(obs, gymnasium.spaces.Box):
        raise UserError(f"observations must be a Box; {env_name(env)} has {obs}. {_way_to_a_box(obs)}")
    name = str(cast("Any", obs).dtype)
    stacked = isinstance(env, gymnasium.wrappers.FrameStackObservation)
    return EnvSpec(
        tuple(obs.shape),
        int(discrete.n),
        name if name in ("uint8", "bool") else "float32",
        cast("Any", env).stack_size if stacked else 1,
    )


def _way_to_a_box(space: Any) -> str:
    vector = "env.flatten_observation=true makes one vector of them"
    if not isinstance(space, gymnasium.spaces.Dict):
        return vector
    keys = ", ".join(cast("Any", space).spaces)
    return f"env.observation_keys=[...] selects some of {keys}; {vector}"


def env_name(env: Env) -> str:
    """What to call an environment in messages."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__
