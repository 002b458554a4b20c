"""Environments: parts that make them, and their shapes."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, cast

from dqn_runner.lazy import gymnasium
from dqn_runner.networks import import_object
from dqn_runner.registry import option
from dqn_runner.types import EnvSpec, UserError

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
class EnvSettings:
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


@option("env", "gym")
@dataclass(kw_only=True)
class GymEnv(EnvSettings):
    """Any gymnasium environment, by id or by import path."""

    id: str = "CartPole-v1"
    """A registered id (`CartPole-v1`), one with its module (`my_pkg.envs:MyEnv-v0`), or the import path of
    a class or function that makes the environment (`my_pkg.envs:MyEnv`, `my_pkg.envs.MyEnv`)."""
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    """Arguments of the environment."""
    wrappers: list[str] = field(default_factory=list[str])
    """Import paths of gymnasium wrappers, the innermost first."""
    observation_keys: list[str] = field(default_factory=list[str])
    """Entries of a Dict observation: one is shown as it is, several are joined into one float vector."""
    flatten_observation: bool = False
    """Show any observation as one vector; a Discrete one becomes one-hot."""
    frame_stack: int = 1
    """Show the last observations along a new first axis: [height, width] becomes [frames, height, width]."""

    def __post_init__(self) -> None:
        """Refuse a stack of nothing."""
        super().__post_init__()
        if self.frame_stack < 1:
            raise UserError(f"env.frame_stack must be at least 1, got {self.frame_stack}")

    def make(self, training: bool = True, render: bool = False) -> Env:
        """A new environment; with `render` it draws frames."""
        kwargs = {**self.kwargs, "render_mode": "rgb_array"} if render else self.kwargs
        try:
            env = self._factory()(**kwargs)
        except TypeError as error:
            if "argument" not in str(error):
                raise
            raise UserError(f"env.id={self.id} does not take env.kwargs={kwargs}: {error}") from error
        if type(env.unwrapped).__module__ == "minatar.gym":
            _forget_last_action(env.unwrapped)
        for path in self.wrappers:
            env = import_object(path, "env.wrappers")(env)
        return self._shown(env)

    def _shown(self, env: Env) -> Env:
        """The environment with its observations selected, flattened and stacked, in this order."""
        from dqn_runner import wrappers

        if self.observation_keys:
            env = wrappers.select_entries(env, self.observation_keys)
        if self.flatten_observation:
            env = wrappers.flatten(env)
        return wrappers.stack_frames(env, self.frame_stack) if self.frame_stack > 1 else env

    def _factory(self) -> Callable[..., Env]:
        module, _, name = self.id.rpartition(":") if ":" in self.id else self.id.rpartition(".")
        if module and "-v" not in name:
            return import_object(self.id, "env.id")
        if module:
            import_module(module, "env.id=" + self.id)

        def make(**kwargs: Any) -> Env:
            try:
                return gymnasium.make(name if ":" in self.id else self.id, disable_env_checker=True, **kwargs)
            except gymnasium.error.Error as error:
                raise UserError(f"env.id={self.id}: {error}") from error

        return make


@option("env", "minatar")
@dataclass(kw_only=True)
class MinAtar(EnvSettings):
    """One of the five games of MinAtar (Young & Tian 2019): 10x10 images, one channel per kind of object."""

    game: str = "breakout"
    """asterix, breakout, freeway, seaquest or space_invaders."""
    minimal_actions: bool = True
    """Only the actions that the game uses (v1); false gives all six (v0), as in the paper's results."""
    sticky_action_prob: float = 0.1
    """Probability that the game repeats the last action instead of the chosen one."""
    difficulty_ramping: bool = True
    """The game becomes faster as it goes on."""

    def make(self, training: bool = True, render: bool = False) -> Env:
        """A new game."""
        minatar = import_module("minatar.gym", f"env.game={self.game}", extra="minatar")
        try:
            game = minatar.BaseEnv(
                game=self.game,
                use_minimal_action_set=self.minimal_actions,
                sticky_action_prob=self.sticky_action_prob,
                difficulty_ramping=self.difficulty_ramping,
                render_mode="rgb_array" if render else None,
            )
        except ModuleNotFoundError as error:
            games = "asterix, breakout, freeway, seaquest, space_invaders"
            raise UserError(f"env.game={self.game} is no MinAtar game; there are {games}") from error
        return _forget_last_action(game)


def _forget_last_action(env: Env) -> Env:
    """MinAtar's reset keeps the last action, which sticky actions would carry into the next episode."""
    reset = env.reset

    def fresh_reset(**kwargs: Any) -> Any:
        env.game.last_action = 0
        return reset(**kwargs)

    env.reset = fresh_reset
    return env


@dataclass(kw_only=True)
class GivenEnv:
    """An environment object that the user made, for the Python API."""

    env: Env
    eval_env: Env | None = None
    num_envs: int = 1
    normalize_observations: bool = False

    def __post_init__(self) -> None:
        """Find a second environment for evaluation before the first one changes."""
        if isinstance(self.env, gymnasium.vector.VectorEnv):
            raise UserError(
                "Trainer takes a single gymnasium.Env, not a VectorEnv; several copies are stepped together "
                "with env.num_envs, or by giving a dqn_runner.envs.GymEnv(id=..., num_envs=...)"
            )
        self._pool: list[Env] = [self.eval_env or _twin(self.env), self.env]

    def make(self, training: bool = True, render: bool = False) -> Env:
        """First the training environment, then the one for evaluation."""
        return self._pool.pop()

    def learning_reward(self, reward: float) -> float:
        """The reward itself."""
        return reward


def as_part(env: Env | EnvPart, eval_env: Env | None) -> EnvPart:
    """`env` if it is a part, else a part that hands out this environment object."""
    given = isinstance(env, (gymnasium.Env, gymnasium.vector.VectorEnv))
    return GivenEnv(env=env, eval_env=eval_env) if given else env


def _twin(env: Env) -> Env:
    if env.spec is not None:
        return gymnasium.make(env.spec)
    try:
        return copy.deepcopy(env)
    except Exception as error:
        raise UserError(
            f"evaluation needs a second {type(env.unwrapped).__name__}, but it can be neither made from a "
            f"gymnasium spec nor copied ({error}); pass Trainer(..., eval_env=...)"
        ) from error


def import_module(name: str, why: str, extra: str | None = None) -> Any:
    """The module `name`; if it is missing, say for what it is needed and how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        hint = f"; pip install 'dqn_runner[{extra}]'" if extra else ""
        raise UserError(f"{why} needs the module '{name}': {error}{hint}") from error


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
