"""What an environment part is, the settings that all of them share, and the shapes of an environment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, cast

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import gymnasium
from dqn_runner.core.settings import check_settings, setting
from dqn_runner.core.types import EnvSpec

Env = Any
"""A `gymnasium.Env`; its generic parameters add no information here."""


class EnvPart(Protocol):
    """Makes the environments of a run: one option of `env=`, or an object passed to `Trainer`."""

    num_envs: int
    normalize_observations: bool

    def make(self, training: bool = True, render: bool = False) -> Env:
        """Return a new `gymnasium.Env` with Box observations and Discrete actions.

        `training=False` leaves out what helps learning but is not part of the task, for example lost lives
        that count as terminal. With `render`, `env.render()` returns RGB frames.
        """
        ...

    def learning_reward(self, reward: float) -> float:
        """Return the reward that the agent learns from, given the reward of the environment."""
        ...


Vectorization = Enum("Vectorization", {"sync": "sync", "async": "async"})
"""Whether several environments are stepped one after the other, or in parallel in separate processes."""


@dataclass(kw_only=True)
class EnvConfig:
    """Settings that every environment has."""

    num_envs: int = setting(1, at_least=1, largest=100_000)
    """Number of copies of the environment that are stepped together."""
    vectorization: Vectorization = Vectorization["sync"]
    """`sync` steps the copies one after the other; `async` in parallel, each in a separate process, for slow
    environments."""
    reward_threshold: float | None = None
    """The mean return at which the task counts as solved; the default of `trainer.target_return`."""
    reward_scale: float = setting(1.0, above=0)
    """Factor on the rewards that the agent learns from; reported returns are not scaled."""
    reward_clip: float | None = setting(None, above=0)
    """Clip the scaled rewards that the agent learns from to [-reward_clip, reward_clip]; reported returns are
    not clipped. null disables clipping."""
    normalize_observations: bool = False
    """Normalise observations with their running mean and standard deviation before the network."""

    __post_init__ = check_settings

    def learning_reward(self, reward: float) -> float:
        """Return the reward scaled, then clipped to [-reward_clip, reward_clip]."""
        scaled, clip = reward * self.reward_scale, self.reward_clip
        return scaled if clip is None else min(max(scaled, -clip), clip)


def spec_of(env: Env) -> EnvSpec:
    """Return the shapes of an environment; raises UserError if DQN cannot handle its spaces."""
    obs: Any = env.observation_space
    action: Any = env.action_space
    if not isinstance(action, gymnasium.spaces.Discrete):
        raise UserError(f"DQN needs a Discrete action space; {env_name(env)} has {action}")
    discrete = cast("Any", action)
    if discrete.start != 0:
        raise UserError(
            f"the actions of {env_name(env)} start at {discrete.start}; wrap it so that they start at 0"
        )
    if not isinstance(obs, gymnasium.spaces.Box):
        raise UserError(f"observations must be a Box; {env_name(env)} has {obs}. {_box_hint(obs)}")
    name = str(cast("Any", obs).dtype)
    stacked = isinstance(env, gymnasium.wrappers.FrameStackObservation)
    return EnvSpec(
        tuple(obs.shape),
        int(discrete.n),
        name if name in ("uint8", "bool") else "float32",
        cast("Any", env).stack_size if stacked else 1,
    )


def _box_hint(space: Any) -> str:
    """Return which settings turn observations of `space` into a Box."""
    flatten = "env.flatten_observation=true flattens them into one vector"
    if not isinstance(space, gymnasium.spaces.Dict):
        return flatten
    keys = ", ".join(cast("Any", space).spaces)
    return f"env.observation_keys=[...] selects some of {keys}; {flatten}"


def env_name(env: Env) -> str:
    """Return the id of an environment, or its class name if it has none, for messages."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__
