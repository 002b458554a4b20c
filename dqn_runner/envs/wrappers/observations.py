"""Wrappers that make what an environment shows fit for a network. Imports gymnasium: import this late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, TransformObservation

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import FloatArray

Env = gymnasium.Env[Any, Any]


def select_entries(env: Env, keys: Sequence[str]) -> Env:
    """Only some entries of a Dict observation.

    One key gives its entry as it is; several are flattened and joined, in this order, into one float vector.
    """
    space: Any = env.observation_space
    if not isinstance(space, spaces.Dict):
        raise UserError(f"env.observation_keys={list(keys)} needs Dict observations; these are {space}")
    entries = cast("dict[str, Any]", space.spaces)
    if missing := [key for key in keys if key not in entries]:
        there = f"there are {', '.join(entries)}"
        raise UserError(f"env.observation_keys: there is no {', '.join(missing)}; {there}")
    chosen = [entries[key] for key in keys]
    if len(keys) == 1:
        return TransformObservation(env, itemgetter(keys[0]), chosen[0])
    flat = [_flat_space(part) for part in chosen]
    low = np.concatenate([part.low for part in flat]).astype(np.float32)
    high = np.concatenate([part.high for part in flat]).astype(np.float32)

    def join(obs: Any) -> FloatArray:
        parts: list[Any] = [spaces.flatten(part, obs[key]) for key, part in zip(keys, chosen, strict=True)]
        return np.concatenate(parts, dtype=np.float32)

    return TransformObservation(env, join, spaces.Box(low, high, dtype=np.float32))


def flatten(env: Env) -> Env:
    """Any observation as one vector; a Discrete one becomes one-hot."""
    space: Any = env.observation_space
    return TransformObservation(env, lambda obs: spaces.flatten(space, obs), _flat_space(space))


def stack_frames(env: Env, frames: int) -> Env:
    """The last `frames` observations along a new first axis; those before an episode are blank.

    Images [height, width] become [frames, height, width], the channels of a convolution (Mnih et al. 2015).
    """
    space: Any = env.observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) > 2:
        raise UserError(
            f"env.frame_stack={frames} stacks vectors and grey images [height, width]; these observations "
            f"are {space}. For images, gymnasium.wrappers.GrayscaleObservation in "
            "env.wrappers gives grey ones"
        )
    copy: Callable[[Any], Any] = np.array  # of what some environments write over
    copied: Env = TransformObservation(env, copy, cast("Any", space))
    return FrameStackObservation(copied, frames, padding_type="zero")


def _flat_space(space: Any) -> spaces.Box:
    flat = cast("Any", spaces.flatten_space(space))
    if not isinstance(flat, spaces.Box):
        raise UserError(f"observations {space} cannot be flattened into a vector of fixed length")
    return cast("spaces.Box", flat)
