"""Copies of an environment object that a user made: independent of the original, or none at all."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import weakref
from collections.abc import Iterator
from enum import Enum
from types import CodeType, FunctionType, ModuleType
from typing import Any, cast

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import gymnasium
from dqn_runner.envs.base import Env, env_name

_CONTAINERS = (dict, list, set, bytearray, np.ndarray, np.random.Generator)
"""Built-in types of which a shared object is shared state."""
_CODE = (type, ModuleType, CodeType, Enum, logging.Logger, str, bytes, int, float)
"""What every copy shares with its original; the search for shared state does not enter it."""


def copy_env(env: Env) -> Env:
    """Return a copy of `env` with its wrappers and with each attribute as it is now.

    Raises UserError, which asks for `eval_env`, if `env` cannot be copied or the copy would share state with
    it, as when a method was replaced by a function that refers to the original.
    """
    try:
        made = copy.deepcopy(env)
    except Exception as error:
        raise _not_copied(env, f"{type(error).__name__}: {error}") from error
    for original, layer in zip(layers(env), layers(made), strict=True):
        if isinstance(original, gymnasium.utils.EzPickle):
            another: Env = copy.deepcopy(original)
            _transfer_settings(original, layer, another, set())
            another.close()
    if shared := _shared_state(env, made):
        raise _not_copied(env, f"its copy would share a {type(shared).__name__} with it")
    return made


def _not_copied(env: Env, why: str) -> UserError:
    return UserError(
        f"evaluation needs a second {env_name(env)}, but this one cannot be copied ({why}); pass "
        "Trainer(..., eval_env=...)"
    )


def layers(env: Env) -> Iterator[Env]:
    """Yield the wrappers of `env` from the outermost, and the environment itself."""
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = cast("Any", env).env
    yield env


def _transfer_settings(original: Any, made: Any, another: Any, seen: set[int]) -> None:
    """Give `made` the plain values of `original` that were changed after its construction.

    The copy of an EzPickle object is built again from the arguments of the constructor. A value that differs
    between two such copies, `made` and `another`, such as the number of a simulator, is not transferred.
    """
    seen.add(id(original))
    values, defaults, others = (cast("dict[str, Any]", vars(each)) for each in (original, made, another))
    for name, value in values.items():
        mine, other = defaults.get(name), others.get(name)
        if is_plain(value):
            if _differ(value, mine) and not _differ(mine, other):
                setattr(made, name, copy.deepcopy(value))
        elif (
            hasattr(value, "__dict__") and type(value) is type(mine) is type(other) and id(value) not in seen
        ):
            _transfer_settings(value, mine, other, seen)


def _differ(one: Any, two: Any) -> bool:
    return type(one) is not type(two) or pickle.dumps(one) != pickle.dumps(two)


def is_plain(value: Any) -> bool:
    """Return whether `value` consists of numbers, strings, arrays, and containers of them."""
    if isinstance(value, dict):
        return all(map(is_plain, cast("dict[Any, Any]", value).values()))
    if isinstance(value, (list, tuple, set)):
        return all(map(is_plain, cast("list[Any]", value)))
    return value is None or isinstance(value, (bool, int, float, str, np.generic, np.ndarray))


def _shared_state(original: Env, made: Env) -> Any:
    """Return an object of the state of `original` that `made` can reach, through functions too; else None.

    Spaces are ignored: functions of gymnasium's wrappers refer to them, and nothing here samples from them.
    """
    own = {id(each): each for each in _reachable(original, through_functions=False) if _is_state(each)}
    return next((each for each in _reachable(made, through_functions=True) if id(each) in own), None)


def _is_state(value: Any) -> bool:
    return isinstance(value, _CONTAINERS) or hasattr(value, "__dict__")


def _reachable(root: Any, through_functions: bool) -> Iterator[Any]:
    """Yield the objects to which `root` refers, directly or not, except code, constants and spaces."""
    from gymnasium.envs.registration import EnvSpec

    ignored: tuple[type, ...] = (*_CODE, gymnasium.Space, EnvSpec)
    seen: dict[int, Any] = {}  # holds the objects, so that no id is used again
    pending: list[Any] = [root]
    while pending:
        value = pending.pop()
        if id(value) in seen or isinstance(value, ignored):
            continue
        seen[id(value)] = value
        if isinstance(value, FunctionType):
            pending += (value.__closure__ or ()) if through_functions else ()
        elif isinstance(value, weakref.ref):
            pending.append(value())
        else:
            yield value
            pending += gc.get_referents(value)
