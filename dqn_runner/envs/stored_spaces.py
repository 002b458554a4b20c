"""The spaces of an environment in a checkpoint, so that an agent can be used without its environment."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.observation_layout import ObservationLayout
from dqn_runner.envs.actions import MAX_JOINT_ACTIONS, ActionSpace, action_space
from dqn_runner.envs.base import Env, env_name, spec_of

_DTYPES = ("float32", "uint8", "bool")
_ENTRY_DTYPES = ("float32", "int32", "int16", "uint8", "bool")
_LARGEST = 2**31


@dataclass(frozen=True)
class StoredSpaces:
    """What an agent must know of its environment."""

    obs_shape: tuple[int, ...]
    obs_dtype: str
    """As in `EnvSpec`."""
    actions: ActionSpace
    has_action_mask: bool = False
    layout: ObservationLayout | None = None
    """As in `EnvSpec`."""


def store_spaces(env: Env) -> str:
    """Return the spaces of `env` as JSON."""
    spec = spec_of(env)
    actions = action_space(env.action_space, env_name(env))
    stored = StoredSpaces(spec.obs_shape, spec.obs_dtype, actions, spec.has_action_mask, spec.layout)
    return json.dumps(asdict(stored))


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
        and (spaces.layout is None or _fits(spaces.layout, spaces))
    ):
        raise ValueError("state.spaces are not the spaces of an environment")
    return spaces


def check_same_spaces(stored: str, ours: str) -> None:
    """Raise UserError if the spaces that a run has stored are not those of its environment now.

    Both are texts of `store_spaces`. The shape and the dtype of actions do not count: sizes and starts give
    their numbers.
    """
    before, after = json.loads(stored), json.loads(ours)
    for spaces in (before, after):
        actions = spaces.pop("actions")
        spaces |= {f"actions.{key}": actions[key] for key in ("sizes", "start")}
    changed = [key for key in after if before.get(key) != after[key]]
    if changed:
        raise UserError(
            "the environment has other observations or actions than when the run began: "
            + "; ".join(f"{key} {before.get(key)} -> {after[key]}" for key in changed)
            + ". Restore it, or start a new run"
        )


def _fits(layout: ObservationLayout, spaces: StoredSpaces) -> bool:
    """Whether `layout` can be that of such observations."""
    entries = layout.entries
    sizes = [layout.frames, *(size for entry in entries for size in (*entry.shape, *entry.sizes))]
    return (
        bool(entries)
        and all(1 <= size <= _LARGEST for size in sizes)
        and len({entry.name for entry in entries}) == len(entries)
        and all(entry.dtype in _ENTRY_DTYPES and entry.path and entry.divisor >= 1 for entry in entries)
        and all(len(e.sizes) == len(e.start) == math.prod(e.shape) for e in entries if e.sizes)
        and all(abs(start) < 2**62 for entry in entries for start in entry.start)
        and layout == ObservationLayout.of(list(entries), layout.frames)
        and (spaces.obs_shape, spaces.obs_dtype) == (layout.obs_shape, "uint8")
    )
