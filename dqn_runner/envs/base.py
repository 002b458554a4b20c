"""What an environment part is, the settings that all of them share, and the shapes of an environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, cast

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import gymnasium
from dqn_runner.core.settings import check_settings, setting
from dqn_runner.core.types import EnvSpec
from dqn_runner.envs.actions import action_space
from dqn_runner.envs.mixed_observations import is_mixed, layout_of

Env = Any
"""A `gymnasium.Env`; its generic parameters add no information here."""


class EnvPart(Protocol):
    """Makes the environments of a run: one option of `env=`, or an object passed to `Trainer`."""

    num_envs: int
    normalize_observations: bool

    def make(self, training: bool = True, render: bool | str = False) -> Env:
        """Return a new `gymnasium.Env` with Box observations and Discrete, MultiDiscrete or
        MultiBinary actions.

        `training=False` leaves out what helps learning but is not part of the task, for example lost lives
        that count as terminal. With `render`, `env.render()` returns RGB frames; `render="human"` shows a
        window.
        """
        ...

    def learning_reward(self, reward: float) -> float:
        """Return the reward that the agent learns from, given the reward of the environment."""
        ...


def render_mode(render: bool | str) -> str | None:
    """The render mode of gymnasium for the argument `render` of `EnvPart.make`."""
    return render if isinstance(render, str) else "rgb_array" if render else None


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

    info_metrics: list[str] = field(default_factory=list[str])
    """Keys of `info` whose numbers are logged as metrics, as those in `info["metrics"]` are."""

    __post_init__ = check_settings

    def learning_reward(self, reward: float) -> float:
        """Return the reward scaled, then clipped to [-reward_clip, reward_clip]."""
        scaled, clip = reward * self.reward_scale, self.reward_clip
        return scaled if clip is None else min(max(scaled, -clip), clip)


OLD_GYM = (
    'gymnasium.make("GymV21Environment-v0", env=...), or "GymV26Environment-v0" if its step() returns 5 '
    "values; both need the package shimmy"
)

FLATTEN = "env.flatten_observation=true flattens them into one vector"


def spec_of(env: Env) -> EnvSpec:
    """Return the shapes of an environment; raises UserError if DQN cannot handle its spaces."""
    from dqn_runner.envs.wrappers.action_masks import mask_source

    name = env_name(env)
    obs: Any = _space(env, "observation_space", name)
    count = action_space(_space(env, "action_space", name), name).num_actions
    stacked = isinstance(env, gymnasium.wrappers.FrameStackObservation)
    frames: int = cast("Any", env).stack_size if stacked else 1
    has_mask = mask_source(env) is not None
    if is_mixed(obs):
        single = cast("Any", env).env.observation_space if stacked else obs
        if not has_mask and "action_mask" in getattr(obs, "spaces", ()):
            raise UserError(
                f"observations of {name} have the key action_mask: env.action_mask=action_mask takes the "
                "action mask from it, and env.observation_keys=[...] with other keys leaves it out"
            )
        layout = layout_of(single, name, frames)
        return EnvSpec(layout.obs_shape, count, "uint8", frames, has_mask, layout)
    if not isinstance(obs, gymnasium.spaces.Box):
        raise UserError(f"observations must be a Box, Dict or Tuple; {name} has {obs}. {FLATTEN}")
    if not obs.shape or 0 in obs.shape:
        hint = f". {FLATTEN}" if not obs.shape else ""
        raise UserError(
            f"{name} has observations of shape {obs.shape}; a network needs at least one axis{hint}"
        )
    dtype = str(cast("Any", obs).dtype)
    kept = dtype if dtype in ("uint8", "bool") else "float32"
    return EnvSpec(tuple(obs.shape), count, kept, frames, has_mask)


def _space(env: Env, which: str, name: str) -> Any:
    """The space `which` of `env`; raises UserError if it has none, or one of the old gym."""
    try:
        space = getattr(env, which, None)
    except Exception as error:
        raise UserError(
            f"{name}: its {which} raised {type(error).__name__}: {error}; set self.{which} in __init__"
        ) from error
    if type(space).__module__.partition(".")[0] == "gym":
        raise UserError(f"{name} is an environment of the old gym, not of gymnasium; wrap it: {OLD_GYM}")
    if space is None:
        raise UserError(f"{name} has no {which}; set self.{which} to a gymnasium space in __init__")
    return space


def env_name(env: Env) -> str:
    """Return the id of an environment, or its class name if it has none, for messages."""
    name = getattr(getattr(env, "spec", None), "id", None)
    return name if isinstance(name, str) else type(getattr(env, "unwrapped", env)).__name__
