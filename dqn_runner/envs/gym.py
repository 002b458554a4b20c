"""Environments: parts that make them, and their shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_module, import_object
from dqn_runner.core.lazy_imports import gymnasium
from dqn_runner.core.registry import option
from dqn_runner.envs.base import Env, EnvConfig
from dqn_runner.envs.minatar import forget_last_action


@option("env", "gym")
@dataclass(kw_only=True)
class GymEnv(EnvConfig):
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
            forget_last_action(env.unwrapped)
        for path in self.wrappers:
            env = import_object(path, "env.wrappers")(env)
        return self._shown(env)

    def _shown(self, env: Env) -> Env:
        """The environment with its observations selected, flattened and stacked, in this order."""
        from dqn_runner.envs.wrappers import observations

        if self.observation_keys:
            env = observations.select_entries(env, self.observation_keys)
        if self.flatten_observation:
            env = observations.flatten(env)
        return observations.stack_frames(env, self.frame_stack) if self.frame_stack > 1 else env

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
