"""The spaces of an environment in a checkpoint, so that an agent can be used without its environment."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from dqn_runner.envs.actions import MAX_JOINT_ACTIONS, ActionSpace, action_space
from dqn_runner.envs.base import Env, env_name, spec_of

_DTYPES = ("float32", "uint8", "bool")
_LARGEST = 2**31


@dataclass(frozen=True)
class StoredSpaces:
    """What an agent must know of its environment."""

    obs_shape: tuple[int, ...]
    obs_dtype: str
    """As in `EnvSpec`."""
    actions: ActionSpace
    has_action_mask: bool = False


def store_spaces(env: Env) -> str:
    """Return the spaces of `env` as JSON."""
    spec = spec_of(env)
    actions = action_space(env.action_space, env_name(env))
    return json.dumps(asdict(StoredSpaces(spec.obs_shape, spec.obs_dtype, actions, spec.has_action_mask)))


def load_spaces(text: Any) -> StoredSpaces:
    """Return what `store_spaces` wrote; raises ValueError for what it cannot have written."""
    import msgspec  # late: only a loaded agent needs it

    spaces = msgspec.json.decode(text, type=StoredSpaces)
    actions = spaces.actions
    lengths = {len(actions.sizes), len(actions.start), math.prod(actions.shape)}
    sizes = (*spaces.obs_shape, *actions.sizes, *actions.shape)
    if not (
        spaces.obs_shape
        and spaces.obs_dtype in _DTYPES
        and all(1 <= size <= _LARGEST for size in sizes)
        and len(lengths) == 1
        and (not actions.shape or actions.num_actions <= MAX_JOINT_ACTIONS)
        and actions.dtype in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
        and all(abs(start) < 2**62 for start in actions.start)
    ):
        raise ValueError("state.spaces are not the spaces of an environment")
    return spaces
