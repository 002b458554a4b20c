"""Numbers the actions of a Discrete, MultiDiscrete or MultiBinary space from zero, as DQN needs them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import gymnasium

MAX_JOINT_ACTIONS = 4096
"""Largest number of combinations: each is an output of the network, and exploration must try them all."""


def num_actions(space: Any, env: str) -> int:
    """The number of actions of `space`; combinations of several choices count as actions.

    Raises UserError, which names the environment `env`, for other spaces and for too many combinations.
    """
    if _is(space, "Discrete"):
        return int(space.n)
    if not _is(space, "MultiDiscrete", "MultiBinary"):
        raise UserError(f"DQN needs a Discrete, MultiDiscrete or MultiBinary action space; {env} has {space}")
    count = math.prod(_choices(space))
    if count > MAX_JOINT_ACTIONS:
        raise UserError(
            f"the action space {_one_line(space)} of {env} has {count} combinations, and each would be an "
            f"action; at most {MAX_JOINT_ACTIONS} are supported. Wrap it so that it offers fewer"
        )
    return count


def action_converter(space: Any) -> Callable[[int], Any]:
    """Return a function from the number of an action to the action that `space` contains."""
    if _is(space, "Discrete"):
        numbers = np.arange(int(space.n)) + int(space.start)
        return numbers.astype(space.dtype).__getitem__
    choices = _choices(space)
    combinations = np.stack(np.unravel_index(np.arange(math.prod(choices)), choices), axis=-1)
    table = combinations.reshape(-1, *space.shape) + getattr(space, "start", 0)
    rows = table.astype(space.dtype)
    return lambda action: rows[action].copy()  # a copy: the environment may change it


def _choices(space: Any) -> list[int]:
    """The number of choices of each component, the last one counting fastest."""
    if _is(space, "MultiBinary"):
        return [2] * math.prod(space.shape)
    return [int(n) for n in space.nvec.ravel()]


def _is(space: Any, *kinds: str) -> bool:
    return isinstance(space, tuple(getattr(gymnasium.spaces, kind) for kind in kinds))


def _one_line(space: Any) -> str:
    return " ".join(str(space).split())
