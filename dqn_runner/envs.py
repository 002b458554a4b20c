"""Environments: parts that make them, and their shapes. The only file that knows gymnasium."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
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

    def make(self, training: bool = True, render: bool = False) -> Env:
        """A new `gymnasium.Env` with Box observations and Discrete actions.

        What helps learning but is not the task (lost lives that count as ends) is left out unless `training`.
        """
        ...

    def learning_reward(self, reward: float) -> float:
        """What the agent learns from where the environment gives `reward`."""
        ...


@option("env", "gym")
@dataclass(kw_only=True)
class GymEnv:
    """Any gymnasium environment, by id or by import path."""

    id: str = "CartPole-v1"
    """A registered id (`CartPole-v1`), one with its module (`my_pkg.envs:MyEnv-v0`), or the import path of
    a class or function that makes the environment (`my_pkg.envs:MyEnv`, `my_pkg.envs.MyEnv`)."""
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    """Arguments of the environment."""
    wrappers: list[str] = field(default_factory=list[str])
    """Import paths of gymnasium wrappers, the innermost first."""
    num_envs: int = 1
    """Copies that are stepped together."""
    reward_threshold: float | None = None
    """The return at which the task counts as solved; `trainer.target_return` follows it."""

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
        return env

    def learning_reward(self, reward: float) -> float:
        """The reward itself."""
        return reward

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
class MinAtar:
    """One of the five games of MinAtar (Young & Tian 2019): 10x10 images, one channel per kind of object."""

    game: str = "breakout"
    """asterix, breakout, freeway, seaquest or space_invaders."""
    minimal_actions: bool = True
    """Only the actions that the game uses (v1); false gives all six (v0), as in the paper's results."""
    sticky_action_prob: float = 0.1
    """Probability that the game repeats the last action instead of the chosen one."""
    difficulty_ramping: bool = True
    """The game becomes faster as it goes on."""
    num_envs: int = 1
    """Copies that are stepped together."""
    reward_threshold: float | None = None
    """The return at which the task counts as solved; `trainer.target_return` follows it."""

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

    def learning_reward(self, reward: float) -> float:
        """The reward itself."""
        return reward


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


def remaker(part: EnvPart) -> Callable[[], Env] | None:
    """How to make one more environment of a part; None for objects that the user made."""
    return None if isinstance(part, GivenEnv) else part.make


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
        raise UserError(
            f"observations must be a Box; {env_name(env)} has {obs}. Wrap it, for example with "
            "env.wrappers=[gymnasium.wrappers.FlattenObservation]"
        )
    name = str(cast("Any", obs).dtype)
    return EnvSpec(tuple(obs.shape), int(discrete.n), name if name in ("uint8", "bool") else "float32")


def env_name(env: Env) -> str:
    """What to call an environment in messages."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__
