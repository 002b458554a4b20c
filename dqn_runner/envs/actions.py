"""Numbers the actions of a Discrete, MultiDiscrete or MultiBinary space from zero, as DQN needs them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import gymnasium
from dqn_runner.core.types import IntArray

MAX_JOINT_ACTIONS = 4096
"""Largest number of combinations: each is an output of the network, and exploration must try them all."""


@dataclass(frozen=True)
class ActionSpace:
    """Choices that an action combines, the last one counting fastest; a Discrete space has one choice."""

    sizes: tuple[int, ...]
    """The number of options of each choice."""
    start: tuple[int, ...]
    """The first option of each choice."""
    shape: tuple[int, ...]
    """Of the array that is an action; () for a number."""
    dtype: str

    @property
    def num_actions(self) -> int:
        """The number of combinations."""
        return math.prod(self.sizes)

    def converter(self) -> Callable[[int], Any]:
        """Return a function from the number of an action to the action that the environment takes."""
        if not self.shape:
            numbers = np.arange(self.sizes[0]) + self.start[0]
            return [*numbers.astype(self.dtype)].__getitem__
        combinations = np.stack(np.unravel_index(np.arange(self.num_actions), self.sizes), axis=-1)
        rows = (combinations + np.array(self.start)).reshape(-1, *self.shape).astype(self.dtype)
        return lambda action: rows[action].copy()  # a copy: the environment may change it

    def numbers(self, actions: Any) -> IntArray:
        """The numbers [n] of actions [n, *shape] as the environment takes them, the opposite of `converter`.

        Raises ValueError, which names the first step with another action.
        """
        given = np.asarray(actions)
        if given.dtype.kind not in "fiub" or given.shape[1:] != self.shape:
            expected = f"arrays of shape {self.shape}" if self.shape else "numbers"
            raise ValueError(f"have shape {given.shape[1:]} and dtype {given.dtype}, not {expected}")
        choices = given.reshape(len(given), -1)
        with np.errstate(all="ignore"):  # infinity, or a float that no integer holds
            whole = choices.astype(np.int64)
            counted = whole - np.array(self.start)
        wrong = (choices != whole) | (counted < 0) | (counted >= np.array(self.sizes))
        if wrong.any():
            step = int(wrong.any(1).argmax())
            raise ValueError(f"have {given[step]} at step {step}, which is not an action of the environment")
        return np.array(np.ravel_multi_index(tuple(counted.T), self.sizes), np.int64)


def action_space(space: Any, env: str) -> ActionSpace:
    """Describe `space`; raises UserError, which names the environment `env`, if DQN cannot handle it."""
    kind = next((k for k in ("Discrete", "MultiDiscrete", "MultiBinary") if _is(space, k)), None)
    if kind is None:
        raise UserError(f"DQN needs a Discrete, MultiDiscrete or MultiBinary action space; {env} has {space}")
    dtype = str(np.dtype(space.dtype))
    if kind == "Discrete":
        found = ActionSpace((int(space.n),), (int(space.start),), (), dtype)
    elif kind == "MultiBinary":
        size = math.prod(space.shape)
        found = ActionSpace((2,) * size, (0,) * size, tuple(space.shape), dtype)
    else:
        start = np.broadcast_to(getattr(space, "start", 0), space.nvec.shape)
        found = ActionSpace(_numbers(space.nvec), _numbers(start), tuple(space.shape), dtype)
    if not found.sizes:
        raise UserError(f"the action space {_one_line(space)} of {env} has no choices; give it at least one")
    if found.num_actions > MAX_JOINT_ACTIONS:
        raise UserError(
            f"the action space {_one_line(space)} of {env} has {found.num_actions} actions, counting every "
            f"combination; at most {MAX_JOINT_ACTIONS} are supported. Wrap it so that it offers fewer"
        )
    return found


def _numbers(array: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in np.ravel(array))


def _is(space: Any, kind: str) -> bool:
    return isinstance(space, getattr(gymnasium.spaces, kind))


def _one_line(space: Any) -> str:
    return " ".join(str(space).split())
