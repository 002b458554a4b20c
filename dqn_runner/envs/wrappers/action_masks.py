"""The wrapper that says where action masks come from. It imports gymnasium, so import it inside functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import gymnasium
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from dqn_runner.core.exceptions import UserError
from dqn_runner.envs.action_mask_check import KEY
from dqn_runner.envs.actions import action_space

Env = gymnasium.Env[Any, Any]

INFO = "info"


class ActionMasks(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """An environment whose `info["action_mask"]` says which actions are allowed.

    If `source` is not `info`, it is the key of a Dict observation: this entry is moved to
    `info["action_mask"]`, so that wrappers around this one and the network see only the others.
    """

    def __init__(self, env: Env, source: str = INFO) -> None:
        """Raises UserError if the observation of `env` has no mask under this key."""
        RecordConstructorArgs.__init__(self, source=source)
        gymnasium.Wrapper.__init__(self, env)  # pyright: ignore[reportUnknownMemberType]
        self.source = source
        if source != INFO:
            self.observation_space = _space_without(env, source)

    def reset(self, **kwargs: Any) -> Any:
        """Reset, and move the mask to `info`."""
        return self._moved(self.env.reset(**kwargs))

    def step(self, action: Any) -> Any:
        """Take a step, and move the mask to `info`."""
        return self._moved(self.env.step(action))

    def _moved(self, result: Any) -> Any:
        """What `reset` or `step` returned; whether a mask is there and right is checked where it is used."""
        if self.source == INFO or not isinstance(result[0], Mapping):
            return result
        obs = dict(cast("Mapping[str, Any]", result[0]))
        mask = {KEY: obs.pop(self.source)} if self.source in obs else {}
        return (obs, *result[1:-1], {**result[-1], **mask})


def mask_source(env: Any) -> str | None:
    """The source of the action masks of `env`, with its wrappers; None if it has none."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, ActionMasks):
            return env.source
        env = cast("Any", env).env
    return None


def wrap_with_masks(env: Env, source: str, wrappers: Iterable[Callable[[Env], Env]]) -> Env:
    """Apply `wrappers`, the innermost first, and `ActionMasks` as the outermost.

    A wrapper that flattens or stacks all entries of a Dict observation would take the mask for one of them,
    so `ActionMasks` goes inside of the first one after which the mask is not there any more.
    """
    taken = False
    for apply in wrappers:
        wrapped = apply(env)
        if not taken and source != INFO and _has_mask(env, source) and not _has_mask(wrapped, source):
            wrapped, taken = apply(ActionMasks(env, source)), True
        env = wrapped
    return env if taken else ActionMasks(env, source)


def _has_mask(env: Env, key: str) -> bool:
    """Whether the observation has an entry `key` with as many elements as there are actions."""
    entries = _entries(env)
    return key in entries and entries[key].shape == (_num_actions(env),)


def _space_without(env: Env, key: str) -> Any:
    """The observation space without the mask; raises UserError if it has no mask."""
    entries = _entries(env)
    if not entries:
        raise UserError(
            f"env.action_mask={key} is a key of a Dict observation, but observations are "
            f"{env.observation_space}; env.action_mask=info takes info['{KEY}']"
        )
    if key not in entries:
        raise UserError(f"env.action_mask: the observation has no {key}; it has {', '.join(entries)}")
    if not _has_mask(env, key):
        raise UserError(
            f"env.action_mask: the observation's {key} is {entries[key]}; a mask has {_num_actions(env)} "
            "entries, one for each action"
        )
    if len(entries) == 1:
        raise UserError(f"env.action_mask: the observation has nothing but {key}")
    return spaces.Dict({name: space for name, space in entries.items() if name != key})


def _entries(env: Env) -> dict[str, Any]:
    space: Any = env.observation_space
    return dict(cast("Any", space).spaces) if isinstance(space, spaces.Dict) else {}


def _num_actions(env: Env) -> int:
    return action_space(env.action_space, "the environment").num_actions
