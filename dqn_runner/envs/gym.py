"""Gymnasium environments, by id or import path, with wrappers for their observations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_module, import_object
from dqn_runner.core.lazy_imports import gymnasium
from dqn_runner.core.registry import option
from dqn_runner.core.settings import setting
from dqn_runner.envs import env_ids
from dqn_runner.envs.base import Env, EnvConfig, render_mode
from dqn_runner.envs.minatar import clear_last_action_on_reset
from dqn_runner.envs.wrapping import check_wrappers, wrap
from dqn_runner.io.signals import as_error


@option("env", "gym")
@dataclass(kw_only=True)
class GymEnv(EnvConfig):
    """Any Gymnasium environment, by id or import path."""

    id: str = "CartPole-v1"
    """A registered id (`CartPole-v1`), an id with the module that registers it (`my_pkg.envs:MyEnv-v0`), or
    the import path of a class or function that makes the environment (`my_pkg.envs:MyEnv`,
    `my_pkg.envs.MyEnv`)."""
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    """Keyword arguments of the environment."""
    wrappers: list[Any] = field(default_factory=list[Any])
    """Gymnasium wrappers, the innermost first: import paths, or mappings with the import path as `_target_`
    and the arguments of the wrapper (`{_target_: gymnasium.wrappers.TimeLimit, max_episode_steps: 10}`)."""
    vocabulary: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Words for each text entry of a Dict observation, as in {mission: [get, the, red, key]}: the entry
    becomes a vector with the count of each of these words, and the count of all other words."""
    observation_keys: list[str] = field(default_factory=list[str])
    """Keys of a Dict observation to use. One key gives that entry unchanged; several entries are flattened
    and concatenated into one float32 vector, unless `separate_keys` is set."""
    separate_keys: bool | None = None
    """Keep several `observation_keys` apart, as a Dict for agent/network=multi_input; null: if that is the
    network."""
    flatten_observation: bool = False
    """Flatten any observation into one vector; a Discrete observation becomes one-hot."""
    frame_stack: int = setting(1, at_least=1, largest=10_000)
    """Stack this many of the last observations along a new first axis: [height, width] becomes
    [frames, height, width]."""
    action_mask: str | None = None
    """Where the environment says which actions are allowed: `info` for `info["action_mask"]`, or the key of a
    Dict observation, which the network then does not see. A mask has a 0 or 1 for each action. null: all
    actions are allowed."""

    def __post_init__(self) -> None:
        """Validate the settings; raises UserError."""
        super().__post_init__()
        check_wrappers(self.wrappers)
        if self.action_mask == "":
            raise UserError("env.action_mask must be info, the key of a Dict observation, or null")
        if self.action_mask in self.observation_keys:
            raise UserError(
                f"env.observation_keys names {self.action_mask}, which is the action mask; leave it out"
            )

    def make(self, training: bool = True, render: bool | str = False) -> Env:
        """Return a new environment, wrapped as set; `render` is as in `EnvPart`.

        Raises UserError if it cannot be imported, is not registered or does not accept `kwargs`.
        """
        kwargs = {**self.kwargs, "render_mode": render_mode(render)} if render else self.kwargs
        factory = self._factory()
        if not callable(factory):
            kind = type(factory).__name__
            raise UserError(f"env.id={self.id} is a {kind}; it must be a class or function that makes an env")
        try:
            env = factory(**kwargs)
        except ModuleNotFoundError as error:
            raise UserError(
                f"env.id={self.id} needs the module {error.name!r}, which is not installed; pip install it"
            ) from error
        except TypeError as error:
            if "argument" not in str(error):
                raise
            raise UserError(f"env.id={self.id} does not accept env.kwargs={kwargs}: {error}") from error
        except (SystemExit, GeneratorExit) as raised:
            raise UserError(f"env.id={self.id} cannot be created: {as_error(raised)}") from raised
        self._require_env(env)
        if type(env.unwrapped).__module__ == "minatar.gym":
            clear_last_action_on_reset(env.unwrapped)
        return self._with_observation_wrappers(self._with_wrappers(env))

    def _require_env(self, made: Any) -> None:
        """Raise UserError if `id` did not make an environment."""
        kind = type(made).__name__
        if isinstance(made, gymnasium.vector.VectorEnv):
            raise UserError(
                f"env.id={self.id} makes a vector environment ({kind}); let it make a single one, and set "
                "env.num_envs"
            )
        if not hasattr(made, "unwrapped"):
            what = "None" if made is None else f"a {kind}"
            raise UserError(
                f"env.id={self.id} makes {what}, not an environment; its class must be a gymnasium.Env"
            )

    def _with_wrappers(self, env: Env) -> Env:
        """Apply `wrappers`, and take the action mask out of the observation if it is there."""
        if self.action_mask is None:
            return wrap(env, self.wrappers)
        from dqn_runner.envs.wrappers.action_masks import wrap_with_masks

        each = [functools.partial(wrap, entries=[entry]) for entry in self.wrappers]
        return wrap_with_masks(env, self.action_mask, each)

    def _with_observation_wrappers(self, env: Env) -> Env:
        """Wrap `env` so that it counts words, selects, flattens and stacks observations, in this order."""
        from dqn_runner.envs.wrappers import observations

        if self.vocabulary:
            env = observations.count_words(env, self.vocabulary)
        keys = self.observation_keys
        if self.action_mask is not None and not keys:
            keys = observations.only_entry(env)
        if keys:
            env = observations.select_entries(env, keys, bool(self.separate_keys))
        if self.flatten_observation:
            env = observations.flatten(env)
        return observations.stack_frames(env, self.frame_stack) if self.frame_stack > 1 else env

    def _factory(self) -> Callable[..., Env]:
        """Return the function or class that `id` names; it takes the keyword arguments of the environment."""
        module, _, name = self.id.rpartition(":") if ":" in self.id else self.id.rpartition(".")
        if module and "-v" not in name:
            return import_object(self.id, "env.id")
        if module:
            import_module(module, "env.id=" + self.id)

        def make(**kwargs: Any) -> Env:
            try:
                registered = env_ids.resolve(name if ":" in self.id else self.id)
                return gymnasium.make(registered, disable_env_checker=True, **kwargs)
            except gymnasium.error.Error as error:
                raise UserError(f"env.id={self.id}: {env_ids.explain(self.id, error)}") from error

        return make
