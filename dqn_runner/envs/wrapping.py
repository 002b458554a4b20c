"""Wrappers that the setting `env.wrappers` names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, cast

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_object
from dqn_runner.core.lazy_imports import gymnasium
from dqn_runner.core.registry import TARGET
from dqn_runner.envs.base import Env
from dqn_runner.envs.env_copy import layers

STATISTICS = (
    "the statistics of this wrapper are not stored: a resumed run starts them from zero and may not repeat "
    "its open episode, and evaluation has its own. Instead, env.normalize_observations=true, "
    "env.reward_scale and env.reward_clip belong to the agent and are resumed exactly"
)
"""What to know about a wrapper with statistics of the whole run."""


def check_wrappers(entries: Sequence[Any]) -> None:
    """Raise UserError unless each entry is an import path, or a mapping with one as `_target_`."""
    for entry in entries:
        path = cast("Any", entry).get(TARGET) if isinstance(entry, Mapping) else entry
        if isinstance(path, str) and path.isidentifier() and hasattr(gymnasium.wrappers, path):
            raise UserError(f"env.wrappers takes import paths; write gymnasium.wrappers.{path}")
        if not isinstance(path, str) or not path.replace(":", ".").strip("."):
            raise UserError(
                f"env.wrappers takes import paths, or mappings with {TARGET} and arguments, such as "
                f"{{{TARGET}: gymnasium.wrappers.TimeLimit, max_episode_steps: 10}}; got {entry!r}"
            )


def wrap(env: Env, entries: Sequence[Any]) -> Env:
    """Apply the wrappers of `entries`, the innermost first.

    Raises UserError for one that cannot be imported, does not accept its arguments, or is not a wrapper.
    """
    for entry in entries:
        settings: dict[str, Any] = {TARGET: entry} if isinstance(entry, str) else dict(entry)
        path: str = settings.pop(TARGET)
        make = import_object(path, "env.wrappers")
        _check_call(make, path, settings)
        env = _applied(make, path, env, settings)
    return env


def stateful_wrappers(env: Env) -> list[str]:
    """Return the names of the wrappers of `env` that have statistics of the whole run.

    Replaying an episode does not restore them, and the environment for evaluation has its own.
    """
    found: list[str] = []
    for layer in layers(env):
        values = cast("dict[str, Any]", vars(layer)).values()
        if any(type(value).__name__ == "RunningMeanStd" for value in values):
            found.append(str(type(layer).__name__))
    return found


def _check_call(make: Any, path: str, settings: Mapping[str, Any]) -> None:
    """Raise UserError if `make` cannot be called with an environment and `settings`."""
    if not callable(make):
        raise UserError(f"env.wrappers: {path} is a {type(make).__name__}, not a wrapper")
    kind: Any = make if inspect.isclass(make) else object
    if issubclass(kind, gymnasium.vector.VectorWrapper):
        name: str = kind.__name__
        hint = f"; gymnasium.wrappers.{name} wraps a single one" if hasattr(gymnasium.wrappers, name) else ""
        raise UserError(f"env.wrappers: {path} wraps vector environments{hint}")
    if issubclass(kind, gymnasium.Env) and not issubclass(kind, gymnasium.Wrapper):
        raise UserError(f"env.wrappers: {path} is an environment, not a wrapper; env.id names an environment")
    try:
        signature = inspect.signature(make)
    except ValueError:  # a function in C, which says nothing about its arguments
        return
    try:
        signature.bind_partial(None, **settings)  # first, so that a misspelled argument is named
        signature.bind(None, **settings)
    except TypeError as error:
        names = list(signature.parameters.values())[1:]
        if not names:
            raise UserError(
                f"env.wrappers: {path} does not take an environment and its settings: {error}"
            ) from error
        arguments = ", ".join(f"{each.name}: ..." for each in names if each.default is each.empty)
        raise UserError(
            f"env.wrappers: {path}: {error}; its arguments are {', '.join(each.name for each in names)}, "
            f"written as env.wrappers=[{{{TARGET}: {path}, {arguments or 'NAME: ...'}}}]"
        ) from error


def _applied(make: Any, path: str, env: Env, settings: Mapping[str, Any]) -> Env:
    try:
        wrapped: Env = make(env, **settings)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"env.wrappers: {path} raised {type(error).__name__}: {error}") from error
    if not issubclass(type(wrapped), gymnasium.Env):
        raise UserError(f"env.wrappers: {path} returned a {type(wrapped).__name__}, not an environment")
    return wrapped
