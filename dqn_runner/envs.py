"""Environments: parts that make them, and batches that step them. The only file that knows gymnasium."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np

from dqn_runner.lazy import gymnasium
from dqn_runner.networks import import_object
from dqn_runner.registry import option
from dqn_runner.types import Array, EnvSpec, State, StepResult, UserError

Env = Any
"""A `gymnasium.Env`; its generic parameters say nothing here."""


class EnvPart(Protocol):
    """A kind of environment."""

    num_envs: int

    def make(self, render: bool = False) -> Env:
        """A new `gymnasium.Env` with Box observations and Discrete actions."""
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

    def make(self, render: bool = False) -> Env:
        """A new environment; with `render` it draws frames."""
        kwargs = {**self.kwargs, "render_mode": "rgb_array"} if render else self.kwargs
        env = self._factory()(**kwargs)
        for path in self.wrappers:
            env = import_object(path, "env.wrappers")(env)
        return env

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

    def make(self, render: bool = False) -> Env:
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

    def __post_init__(self) -> None:
        """Find a second environment for evaluation before the first one changes."""
        if isinstance(self.env, gymnasium.vector.VectorEnv):
            raise UserError(
                "Trainer takes a single gymnasium.Env, not a VectorEnv; several copies are stepped together "
                "with env.num_envs, or by giving a dqn_runner.envs.GymEnv(id=..., num_envs=...)"
            )
        self._pool: list[Env] = [self.eval_env or _twin(self.env), self.env]

    def make(self, render: bool = False) -> Env:
        """First the training environment, then the one for evaluation."""
        return self._pool.pop()


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
        raise UserError(f"DQN needs a Discrete action space; {_name(env)} has {action}")
    discrete = cast("Any", action)
    if discrete.start != 0:
        raise UserError(f"{_name(env)}'s actions start at {discrete.start}; wrap it so that they start at 0")
    if not isinstance(obs, gymnasium.spaces.Box):
        raise UserError(
            f"observations must be a Box; {_name(env)} has {obs}. Wrap it, for example with "
            "env.wrappers=[gymnasium.wrappers.FlattenObservation]"
        )
    name = str(cast("Any", obs).dtype)
    return EnvSpec(tuple(obs.shape), int(discrete.n), name if name in ("uint8", "bool") else "float32")


def _name(env: Env) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


class EnvBatch:
    """`n` environments stepped together, with explicit seeds.

    An environment that ends is reset within the same step, and both observations are handed out, so no
    ghost transition exists. The state of an environment is the seed of its episode and the actions since.
    """

    def __init__(
        self, envs: list[Env], seed_of: Callable[[int, int], int], max_episode_steps: int | None
    ) -> None:
        """`seed_of(env, episode)` gives reset seeds; episodes are truncated after `max_episode_steps`."""
        self.envs = envs
        self.spec = spec_of(envs[0])
        self._seed_of = seed_of
        self._limit = max_episode_steps or 2**63
        shape = (len(envs), *self.spec.obs_shape)
        self.obs = np.zeros(shape, self.spec.obs_dtype)
        self._spare = np.zeros(shape, self.spec.obs_dtype)
        self._next_obs = np.zeros(shape, self.spec.obs_dtype)
        self._episodes = [0] * len(envs)
        self._actions: list[list[int]] = [[] for _ in envs]
        for index in range(len(envs)):
            self.obs[index] = self._reset(index, 0)

    def step(self, actions: list[int]) -> StepResult:
        """One step of every environment. The arrays of the result are overwritten by the next but one.

        If an environment raises, the batch stands where it stood: nobody has seen any of the step, and
        a checkpoint of it plays all environments again up to there.
        """
        obs = self._spare
        rewards: list[float] = []
        terminations: list[bool] = []
        truncations: list[bool] = []
        for index, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            next_obs, reward, terminated, truncated, _ = env.step(action)
            truncated = bool(truncated) or len(self._actions[index]) + 1 >= self._limit
            self._next_obs[index] = next_obs
            if terminated or truncated:
                next_obs = self._reset(index, self._episodes[index] + 1)
            obs[index] = next_obs
            rewards.append(float(reward))
            terminations.append(bool(terminated))
            truncations.append(truncated)
        for index, action in enumerate(actions):
            if terminations[index] or truncations[index]:
                self._episodes[index] += 1
                self._actions[index] = []
            else:
                self._actions[index].append(action)
        self.obs, self._spare = obs, self.obs
        return StepResult(self.obs, self._next_obs, rewards, terminations, truncations)

    def state_dict(self) -> State:
        """Which episode each environment is in, its actions since the reset, and what it shows."""
        return {
            "episodes": list(self._episodes),
            "actions": [np.array(actions, np.int64) for actions in self._actions],
            "obs": self.obs.copy(),
        }

    def load_state_dict(self, state: State) -> None:
        """Play the open episodes again; raises if an environment then shows something else."""
        if len(state["episodes"]) != len(self.envs):
            raise UserError(
                f"the checkpoint was written with env.num_envs={len(state['episodes'])}, not {len(self.envs)}"
            )
        self._episodes = list(state["episodes"])
        for index, env in enumerate(self.envs):
            self.obs[index] = self._reset(index, self._episodes[index])
            self._actions[index] = []
            for action in np.asarray(state["actions"][index]).tolist():
                self.obs[index] = env.step(action)[0]
                self._actions[index].append(action)
        saved = np.asarray(state["obs"])
        for index, env in enumerate(self.envs):
            if not np.array_equal(self.obs[index], saved[index], equal_nan=saved.dtype.kind == "f"):
                raise UserError(
                    f"{_name(env)} did not come back to the observation of the checkpoint after the same "
                    f"seed and {len(self._actions[index])} actions: "
                    f"{_difference(self.obs[index], saved[index])}. "
                    "Its reset(seed=...) must make the episode repeatable"
                )

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()

    def _reset(self, index: int, episode: int) -> Array:
        obs, _ = self.envs[index].reset(seed=self._seed_of(index, episode))
        if np.shape(obs) != self.spec.obs_shape:
            raise UserError(
                f"{_name(self.envs[index])} returned an observation of shape {np.shape(obs)}, but its "
                f"observation_space says {self.spec.obs_shape}"
            )
        return obs


def _difference(now: Array, saved: Array) -> str:
    where = np.unravel_index(int(np.argmax(now != saved)), now.shape)
    return f"element {tuple(int(i) for i in where)} is {now[where]}, it was {saved[where]}"
