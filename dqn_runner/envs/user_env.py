"""Environment objects that are passed to `Trainer` in the Python API, as an environment part."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import gymnasium
from dqn_runner.envs.base import Env, EnvPart


@dataclass(kw_only=True)
class UserEnv:
    """An environment object for training and one for evaluation; without `eval_env`, a copy of `env`."""

    env: Env
    eval_env: Env | None = None
    num_envs: int = 1
    normalize_observations: bool = False

    def __post_init__(self) -> None:
        """Copy the environment for evaluation if none was given, before training changes its state.

        Raises UserError if `env` is a VectorEnv or cannot be copied.
        """
        if isinstance(self.env, gymnasium.vector.VectorEnv):
            raise UserError(
                "Trainer takes a single gymnasium.Env, not a VectorEnv; to step several copies together, "
                "pass dqn_runner.envs.gym.GymEnv(id=..., num_envs=...)"
            )
        if self.eval_env is None:
            self.eval_env = _copy(self.env)

    def make(self, training: bool = True, render: bool = False) -> Env:
        """Return the environment object for training or the one for evaluation, not a new one."""
        return self.env if training else self.eval_env

    def learning_reward(self, reward: float) -> float:
        """Return the reward unchanged."""
        return reward


def as_part(env: Env | EnvPart, eval_env: Env | None) -> EnvPart:
    """Return `env` if it is an environment part, else wrap the environment object in one."""
    is_env = isinstance(env, (gymnasium.Env, gymnasium.vector.VectorEnv))
    return UserEnv(env=env, eval_env=eval_env) if is_env else env


def _copy(env: Env) -> Env:
    if env.spec is not None:
        return gymnasium.make(env.spec)
    try:
        return copy.deepcopy(env)
    except Exception as error:
        raise UserError(
            f"evaluation needs a second {type(env.unwrapped).__name__}, but this one has no gymnasium spec "
            f"and cannot be copied ({error}); pass Trainer(..., eval_env=...)"
        ) from error
