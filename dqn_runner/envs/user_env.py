"""Environment objects that are passed to `Trainer` in the Python API, as an environment part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import gymnasium
from dqn_runner.core.registry import TARGET, to_plain
from dqn_runner.envs.base import Env, EnvPart
from dqn_runner.envs.env_copy import copy_env, is_plain
from dqn_runner.envs.gym import GymEnv


@dataclass(kw_only=True)
class UserEnv:
    """An environment object for training and one for evaluation; without `eval_env`, a copy of `env`."""

    env: Env
    eval_env: Env | None = None
    num_envs: int = 1
    normalize_observations: bool = False

    def __post_init__(self) -> None:
        """Copy the environment for evaluation if none was given, before training changes its state.

        Raises UserError if `env` is a VectorEnv or cannot be copied, and if `eval_env` is the same one.
        """
        for given in (self.env, self.eval_env):
            if isinstance(given, gymnasium.vector.VectorEnv):
                raise UserError(
                    "Trainer takes a single gymnasium.Env, not a VectorEnv; to step several copies together, "
                    "pass dqn_runner.envs.gym.GymEnv(id=..., num_envs=...)"
                )
        self.can_be_replaced = self.eval_env is None
        """Whether an environment that raised can be replaced by another copy."""
        if self.eval_env is None:
            self.eval_env = copy_env(self.env)
        elif self.eval_env.unwrapped is self.env.unwrapped:
            raise UserError(
                "eval_env is the training environment, whose episodes an evaluation would interrupt; pass "
                "another object, or none to evaluate in a copy"
            )

    def make(self, training: bool = True, render: bool | str = False) -> Env:
        """Return the environment object for training or the one for evaluation, not a new one.

        With `render`, return a copy of the latter, which renders if the object was made with a render mode.
        """
        if render:
            return copy_env(self.eval_env)
        return self.env if training else self.eval_env

    def make_replacement(self) -> Env:
        """Return another copy, made from that for evaluation: the original raised."""
        return copy_env(self.eval_env)

    def learning_reward(self, reward: float) -> float:
        """Return the reward unchanged."""
        return reward


def as_part(env: Env | EnvPart, eval_env: Env | None) -> EnvPart:
    """Return `env` if it is an environment part, else wrap the environment object in one.

    Raises UserError if it is neither.
    """
    if isinstance(env, (gymnasium.Env, gymnasium.vector.VectorEnv)):
        return UserEnv(env=env, eval_env=eval_env)
    if isinstance(env, (str, type)) or not callable(getattr(env, "make", None)):
        what = getattr(env, "__name__", repr(env))
        how = f"{what}()" if isinstance(env, type) else "gymnasium.make('CartPole-v1')"
        raise UserError(f"Trainer takes the object of an environment, such as {how}, not {what:.60}")
    return env


def describe(part: EnvPart) -> Any:
    """Return the plain settings by which the program can make the environment of a script again.

    None if it cannot: the environment is not registered with gymnasium, or a wrapper does not record its
    arguments. Attributes that the script changed are not included.
    """
    if not isinstance(part, UserEnv):
        return to_plain(part)
    spec: Any = part.env.spec
    if spec is None or any(wrapper.kwargs is None for wrapper in spec.additional_wrappers):
        return None
    kwargs = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
    registered = gymnasium.registry.get(spec.id)
    if registered is None or spec.max_episode_steps != registered.max_episode_steps:
        kwargs["max_episode_steps"] = spec.max_episode_steps
    wrappers = [{TARGET: each.entry_point, **each.kwargs} for each in spec.additional_wrappers]
    if not is_plain([kwargs, wrappers]):
        return None
    return to_plain(GymEnv(id=spec.id, kwargs=kwargs, wrappers=wrappers))
